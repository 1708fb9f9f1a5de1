"""Every file under instances/ has its proven cost, and says it in its description."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_problems import ROOT

import inferno_milp as im
from inferno_milp.problem.transition import price_today
from inferno_milp.studies.load_change import change_loads

PROVEN: dict[str, float] = {
    "infeasible.yaml": 2.2,
    "limited.yaml": 26300.5,
    "limited-load-change.yaml": 20806.05,
    "real-cloud.yaml": 133.00721,
    "fleet.yaml": 14.2,
    "day.yaml": 42.6,
    "mixes.yaml": 18.128962,
    "small.yaml": 38.3,
    "three-models.yaml": 34.4,
    "unlimited.yaml": 18205.0,
    "unlimited-load-change.yaml": 16394.0,
}


def test_all_are_listed() -> None:
    assert sorted(PROVEN) == sorted(path.name for path in (ROOT / "instances").iterdir())


@pytest.mark.parametrize("name", PROVEN)
def test_proven_cost(instances: Path, name: str) -> None:
    plan = im.optimize(im.read_problem(instances / name), gap=0.0)
    cost = PROVEN[name]
    description = yaml.safe_load((instances / name).read_text())["description"]
    assert plan.status == ("partial" if name == "infeasible.yaml" else "optimal")
    assert plan.objective == pytest.approx(cost)
    assert plan.bound == pytest.approx(cost)
    what = "value" if plan.objective_parts["changes"] else "cost"
    assert f"Proven least {what}: {cost:.10g} " in description
    assert f"{plan.total_cost_per_hour:.10g}" in description


@pytest.mark.parametrize("name", ["limited", "unlimited"])
def test_load_changes_are_what_they_say(instances: Path, name: str) -> None:
    """What the demonstration makes of the examples, from whatever plan of least cost it found before."""
    before = im.read_problem(instances / f"{name}.yaml")
    after = im.read_problem(instances / f"{name}-load-change.yaml")
    changed = change_loads(before)
    assert [s.load for s in after.servers] == [s.load for s in changed.servers]
    assert (after.capacity, after.accelerators, after.profiles) == (
        before.capacity,
        before.accelerators,
        before.profiles,
    )
    today = sum(sum(prices.price_per_hour.values()) for prices in price_today(after))
    assert today == pytest.approx(PROVEN[f"{name}.yaml"])
