"""A day of load with a burst, in the emulated cluster: the loop, beside static peak plans and thresholds.

    python -m benchmarks.control_day [--hours 24] [--problem instances/fleet.yaml] [--json FILE] [--plot FILE]

Everybody gets the same requests, and begins with the same plan. The threshold autoscaler, Kubernetes' HPA on the
requests at each pod, is given the best of several thresholds: the share of the batch places that it aims at is swept,
and it may use what it was deployed on alone, as it knows nothing of other accelerators.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import inferno_milp as im
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.emulation.day import Emulation, run_controlled, run_threshold
from inferno_milp.control.emulation.load import Day
from inferno_milp.control.emulation.timeline import Timeline

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)


def main() -> None:
    """Run all policies, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problem", default="instances/fleet.yaml")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--burst", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    problem = im.read_problem(arguments.problem)
    day = Day(hours=arguments.hours, burst=arguments.burst)

    def emulation(factor: float) -> Emulation:
        found = Emulation(problem, day, seed=arguments.seed)
        found.begin(factor)
        return found

    start = day.factor(0.0)
    days: dict[str, Timeline] = {}

    def run(name: str, timeline: Timeline) -> None:
        days[name] = timeline
        held = {t: f"{n}/{(timeline.available or {}).get(t)}" for t, n in sorted(timeline.most_held.items())}
        print(
            f"{name:28} {timeline.attainment:8.2%} {timeline.mean_cost_per_hour:9.2f} "
            f"{timeline.changes / timeline.hours:10.2f} {timeline.reversals:9d}  {held}",
            flush=True,
        )

    print(f"{'policy':28} {'kept':>8} {'cost/h':>9} {'changes/h':>10} {'reversals':>9}  devices held")
    run("the loop", run_controlled(emulation(start), ControlConfig(problem=arguments.problem)))
    run("static, daily peak", emulation(1.0).run())
    run("static, peak with the burst", emulation(day.peak).run())
    for share in SHARES:
        found = emulation(start)
        places = {d.server: share * (d.batch_size or 1) for d in found.cluster.read().deployments if d.replicas}
        run(f"thresholds, {share:.0%} of places", run_threshold(found, places, window_s=600.0))
    if arguments.json is not None:
        text = json.dumps({name: timeline.to_dict() for name, timeline in days.items()}, allow_nan=False)
        arguments.json.write_text(text, encoding="utf-8")
    if arguments.plot is not None:
        from inferno_milp.report.plots.timeline import draw_days

        shown = {name: timeline.to_dict() for name, timeline in days.items() if not name.startswith("thresholds")}
        arguments.plot.write_bytes(draw_days(problem, shown, arguments.plot.suffix[1:]))


if __name__ == "__main__":
    main()
