"""What a plan and a problem look like where they are printed."""

from __future__ import annotations

from pathlib import Path

import inferno_milp as im


def test_a_printed_plan_is_its_table(instances: Path) -> None:
    plan = im.optimize(im.read_problem(instances / "small.yaml"))
    text = str(plan)
    assert text == plan.summary()
    lines = text.splitlines()
    assert lines[0].startswith("small: 38.3 usd/h, optimal, one accelerator per server (bound 38.3, gap 0.00%); 6 of 6")
    assert lines[2].split() == ["server", "accelerator", "replicas", "max", "batch", "usd/h", "TTFT", "ms", "ITL", "ms"]
    assert len(lines) == 3 + sum(max(len(server.allocations), 1) for server in plan.servers)
    assert lines[-1].split() == ["standby", "L4", "1", "24", "0.7", "–", "–"]
    assert max(map(len, lines)) < 120


def test_figures_keep_their_digits(instances: Path) -> None:
    """Costs of 783.75, and whole numbers beside servers that run nothing."""
    assert "783.75" in str(im.optimize(im.read_problem(instances / "limited.yaml")))
    lines = str(im.optimize(im.read_problem(instances / "infeasible.yaml"))).splitlines()
    assert lines[-2].split()[:4] == ["impatient-chat-8b", "A100", "1", "7"]
    assert set(lines[-1].split()[1:]) == {"–"}


def test_representations_are_short(instances: Path) -> None:
    problem = im.read_problem(instances / "limited.yaml")
    assert repr(problem) == "<Problem limited: 27 servers, 9 language models, 21 accelerators>"
    assert str(problem) == repr(problem)
    plan = im.optimize(problem)
    assert repr(plan) == "<Plan limited: optimal, 26300.5 cents/h, 27 of 27 servers served>"


def test_notebooks_get_a_table(instances: Path) -> None:
    plan = im.optimize(im.read_problem(instances / "small.yaml"))
    page = plan._repr_html_()
    assert page.startswith("<p>small: 38.3 usd/h, optimal")
    assert page.count("<tr") == 1 + sum(len(server.allocations) for server in plan.servers)


def test_without_a_plan(instances: Path) -> None:
    plan = im.optimize(im.read_problem(instances / "limited.yaml"), time_limit_s=1e-9)
    assert repr(plan) == "<Plan limited: no_solution, no plan, 0 of 27 servers served>"
    assert "no solution: the time ran out" in str(plan)
