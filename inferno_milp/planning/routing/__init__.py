"""Requests routed by their sizes: which accelerators carry which requests of a mix, at least cost.

`route` and `pools` are for problems, with the latencies of the queueing analysis; `tables` is for measured throughputs;
`program` is the mixed-integer program of both, `check` what every answer passes.
"""
