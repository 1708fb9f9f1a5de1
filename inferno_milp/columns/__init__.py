"""Columns: from a problem to what its servers may run, at what rate and cost, and to the limits they share."""
