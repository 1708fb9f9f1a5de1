"""Prompts and outputs on engines of their own: `disaggregate` finds for which servers that is worth it.

`phases` makes servers of the two phases, `transfer` is what lies between them, `curves` their latencies by replicas,
`pairs` which numbers of both keep a promise together, `split` the program, `check` its check, `simulation` the proof.
"""
