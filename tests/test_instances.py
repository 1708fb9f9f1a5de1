"""Every file under instances/ has its proven cost, and says it in its description."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import inferno_milp as im
from conftest import ROOT

PROVEN: dict[str, float | None] = {
    "infeasible.yaml": None,
    "limited.yaml": 26300.5,
    "small.yaml": 38.3,
    "unlimited.yaml": 18205.0,
}


def test_all_are_listed() -> None:
    assert sorted(PROVEN) == sorted(path.name for path in (ROOT / "instances").iterdir())


@pytest.mark.parametrize("name", PROVEN)
def test_proven_cost(instances: Path, name: str) -> None:
    plan = im.optimize(im.read_problem(instances / name), gap=0.0)
    cost = PROVEN[name]
    description = yaml.safe_load((instances / name).read_text())["description"]
    if cost is None:
        assert plan.status == "infeasible"
        assert "Proven: infeasible." in description
    else:
        assert plan.status == "optimal"
        assert plan.total_cost_per_hour == pytest.approx(cost)
        assert plan.bound == pytest.approx(cost)
        assert f"Proven least cost: {cost:g} " in description
