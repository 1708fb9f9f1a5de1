"""The autoscaling loop (extra `control`): Prometheus in, plan, Kubernetes out.

One way: `collector` (what servers do) → `demand` (the load to plan for) → `decide` (what they are to run) → `steps`
(what can be done now) → `gate` (no step leaves a limit) → a `Cluster`. `controller` does a round, `runner` does them
for ever, `emulation` lets one try it.
"""
