"""Advice on what to buy is about what may be bought, says what it costs, and is in every plan that lacks devices."""

from __future__ import annotations

from typing import Any

import pytest
from small_problems import make_problem, problem_data

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.planning.purchase import find_purchase
from inferno_milp.problem import Problem
from inferno_milp.problem.writing import problem_text
from inferno_milp.studies.prices import find_prices


def short(**changes: Any) -> Problem:
    """A system without enough devices."""
    return make_problem(**{"capacity": {"A": 0}, **changes})


def bought(problem: Problem) -> set[str]:
    return {item.type for item in find_purchase(find_candidates(problem), time_limit_s=1e6) or ()}


def test_by_default_what_there_is_a_count_of() -> None:
    assert bought(short()) == {"A"}
    assert bought(short(capacity={"B": 0})) == {"B"}
    assert bought(short(capacity={"A": 0, "B": 0})) == {"A"}  # the cheaper one
    assert bought(short(capacity={}, nodes=[{"type": "B", "devices": 2, "count": 0}])) == {"B"}


def test_what_is_named() -> None:
    assert bought(short(buyable=["B"])) == {"B"}
    assert bought(short(capacity={"B": 0}, buyable=["A"])) == {"A"}
    assert bought(short(buyable=[])) == set()


def test_in_pools_it_is_each_of_them() -> None:
    pools = [{"name": "own", "type": "B", "count": 0}, {"name": "spot", "type": "B", "count": 0, "cost_factor": 0.3}]
    problem = im.read_problem_data({**problem_data(), "capacity": {"A": 0}, "pools": pools, "buyable": ["B"]})
    assert problem.buyable == ("B@own", "B@spot")
    assert bought(problem) == {"B@spot"}


def test_a_type_that_is_not_known() -> None:
    with pytest.raises(im.InputError, match=r"buyable\[0\]: unknown accelerator type 'H100'"):
        short(buyable=["H100"])


def test_the_advice_says_what_it_costs() -> None:
    plan = im.optimize(short(buyable=["B"]))
    assert plan.messages[0] == "all servers would fit with 1 B more (25 cents/h), the cheapest devices to add"


def test_where_nothing_that_may_be_bought_would_do_it_says_so() -> None:
    class_ = {"name": "gold", "priority": 1, "targets": {"m": {"itl_ms": 9.0}}}  # for B alone
    (message, *_) = im.optimize(short(service_classes=[class_])).messages
    assert message == "gold-m: only B could serve it; name under `buyable` what may be bought"


def test_prices_are_of_what_is_there_or_may_be_bought() -> None:
    prices = find_prices(make_problem(capacity={"A": 20}), of=("devices",))
    assert [device.type for device in prices.devices] == ["A"]
    prices = find_prices(make_problem(capacity={"A": 20}, buyable=["B"]), of=("devices",))
    assert [device.type for device in prices.devices] == ["A", "B"]


def test_whatif_keeps_it(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(problem_text(make_problem()))
    assert main(["whatif", str(tmp_path / "p.yaml"), "--set", "capacity={B: 0}"]) == 1
    assert "note, after: all servers would fit with 1 B more (25 cents/h)" in capsys.readouterr().out


def test_replicas_larger_than_a_node_are_named_as_they_are() -> None:
    """Of 16 devices in nodes of 8 it was said that nodes of at least 9 were needed."""
    accelerators = [{"name": f"{n}xB", "type": "B", "devices": n, "cost_per_hour": 25.0 * n} for n in (16, 32)]
    profiles = [{**problem_data()["profiles"][1], "accelerator": a["name"]} for a in accelerators]
    nodes = [{"type": "B", "devices": 8, "count": 4}]
    plan = im.optimize(make_problem(accelerators=accelerators, profiles=profiles, capacity={}, nodes=nodes))
    assert plan.servers[0].reason == "it does not fit even alone: it needs 16 B in one node (nodes hold 8)"
