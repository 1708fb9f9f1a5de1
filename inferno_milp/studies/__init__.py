"""Studies of plans: why, what if, what is it worth, at which load, simulated."""
