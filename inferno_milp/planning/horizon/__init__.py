"""Loads that are not one number: the periods of a day, and scenarios of what may come, each in one program.

`ways` says what a replica carries, `program` is the mixed-integer program, `plans` what it comes to, `check` what every
plan passes, `plan` plans, with what one would do otherwise beside it.
"""
