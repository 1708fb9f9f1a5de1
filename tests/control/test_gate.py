"""The last check before a write: whatever steps it is given, capacity, minimum, maximum and pace hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from control_parts import FakeClock, FakeCluster, FakeSource, config, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_milp.control.config import StabilitySettings
from inferno_milp.control.controller import Controller
from inferno_milp.control.fleet import devices_held
from inferno_milp.control.gate import Gate, Pace
from inferno_milp.control.problems import FixedProblem
from inferno_milp.control.steps import Step, Steps

HOMES = [("gold", "A100"), ("gold", "H100"), ("tin", "A100"), ("tin", "H100")]
counts = st.integers(0, 8)


def limited(least, most, capacity=(8, 4)):
    servers = [
        {"name": name, "service_class": name, "model": "m", "min_replicas": low, "max_replicas": high}
        for name, low, high in zip(("gold", "tin"), least, most, strict=True)
    ]
    return problem(servers=servers, capacity={"A100": capacity[0], "H100": capacity[1]})


def totals(asked):
    return {server: sum(count for (name, _), count in asked.items() if name == server) for server in ("gold", "tin")}


@settings(deadline=None)
@given(
    now=st.tuples(counts, counts, counts, counts),
    wanted=st.lists(st.tuples(st.integers(0, 3), counts), max_size=8),
    capacity=st.tuples(counts, counts),
    least=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    most=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    max_step=st.integers(1, 9),
)
def test_no_steps_leave_the_limits(now, wanted, capacity, least, most, max_step):
    """Any steps of any fleet: what was outside of a limit before may stay so, and gets no worse."""
    found = limited(least, most, capacity)
    cluster = FakeCluster(found, {home: (count, 32) for home, count in zip(HOMES, now, strict=True)}, FakeClock())
    fleet = cluster.read(found)
    by_home = {(d.server, d.accelerator): d for d in fleet.deployments}
    asked = {home: d.replicas for home, d in by_home.items()}
    steps = {HOMES[i]: Step(by_home[HOMES[i]], count) for i, count in wanted}
    pace = Pace(StabilitySettings(max_step=max_step, max_moves=1))
    gate = Gate(found, fleet, found.devices_available, pace, 0.0)
    admitted = gate.admit(Steps(tuple(steps.values()), {})).now
    before, moved = totals(asked), 0
    for step in admitted:
        home = (step.deployment.server, step.deployment.accelerator)
        elsewhere = any(d.replicas for d in fleet.of(home[0])) and not by_home[home].replicas
        moved += step.replicas > 0 and elsewhere
        assert abs(step.replicas - asked[home]) <= max_step
        asked[home] = step.replicas
        for server, low, high in zip(("gold", "tin"), least, most, strict=True):
            assert min(before[server], low) <= totals(asked)[server] <= max(before[server], high)
    assert moved <= 1
    held_before = devices_held(found, fleet.deployments)
    after = [replace(d, replicas=max(asked[d.server, d.accelerator], d.replicas)) for d in fleet.deployments]
    for name, count in devices_held(found, after).items():
        assert count <= max(held_before.get(name, 0), found.devices_available[name])


def invoked(times, seconds_between, **stability):
    """Return what a server has after each of several rounds, whose load asks for many more replicas."""
    clock, found = FakeClock(), problem()
    cluster = FakeCluster(found, {("gold", "A100"): (1, 32)}, clock)
    controller = Controller(
        config(stability=stability), FixedProblem(found), cluster, FakeSource({"gold": 90.0}), clock
    )
    seen = []
    for _ in range(times):
        controller.run_round()
        seen.append(cluster.replicas()["gold-a100"])
        clock.wait(seconds_between)
    return seen


@pytest.mark.parametrize(("seconds", "expected"), [(1, [3, 3, 3, 3]), (60, [3, 5, 7, 8]), (30, [3, 3, 5, 5])])
def test_limits_hold_per_period_however_many_rounds_are_invoked(seconds, expected):
    assert invoked(4, seconds, max_step=2) == expected


def test_the_way_down_is_limited_per_period_too():
    pace = Pace(StabilitySettings(max_step=2, period_s=60.0))
    pace.note("a", 10, 0.0)
    pace.note("a", 8, 0.0)
    assert pace.limits("a", 8, 30.0) == (8, 10)
    assert pace.limits("a", 8, 60.0) == (6, 10)


def test_moves_are_limited_per_period():
    pace = Pace(StabilitySettings(max_moves=1, period_s=60.0))
    found = problem()
    cluster = FakeCluster(found, {home: (n, 32) for home, n in zip(HOMES, (1, 0, 1, 0), strict=True)}, FakeClock())
    fleet = cluster.read(found)
    for elapsed, server, admitted in ((0.0, "gold", 1), (30.0, "tin", 0), (30.0, "gold", 1), (61.0, "tin", 1)):
        to = next(d for d in fleet.of(server) if d.accelerator == "H100")
        gate = Gate(found, fleet, found.devices_available, pace, elapsed)
        steps = gate.admit(Steps((Step(to, 1),), {}))
        assert len(steps.now) == admitted, (elapsed, server)
        assert admitted or "max_moves is 1 in 60 s" in steps.waiting[server]
    only = fleet.of("gold")[0]
    gate = Gate(found, fleet, found.devices_available, Pace(StabilitySettings(max_moves=0)), 0.0)
    assert not gate.admit(Steps((Step(only, 1, "H100", 64),), {})).now


@pytest.mark.parametrize("slow", [False, True])
def test_a_server_that_moves_never_has_more_than_its_most(slow):
    """Through the loop: it leaves H100, where its new replicas would come on top of its old ones."""
    found = limited((2, 1), (3, 3))
    clock = FakeClock()
    replicas = {("gold", "A100"): (0, 32), ("gold", "H100"): (3, 64), ("tin", "A100"): (1, 32)}
    cluster = FakeCluster(found, replicas, clock, slow=slow)
    source = FakeSource({"gold": 20.0, "tin": 1.0})
    controller = Controller(config(), FixedProblem(found), cluster, source, clock)
    seen = []
    for _ in range(15):
        assert not controller.run_round().errors
        now = cluster.replicas()
        seen.append((now["gold-a100"], now["gold-h100"]))
        assert 2 <= sum(seen[-1]) <= 3
        clock.wait(60)
    assert seen[-1][0] > 0, "the test needs a server that moves"
    assert seen[-1][1] == 0, "it comes to an end"
