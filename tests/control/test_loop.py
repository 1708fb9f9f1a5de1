"""The loop over a cluster in memory: what it decides, and what becomes of it when things fail."""

import itertools
import json
import threading
import time

import pytest
from control_parts import PROBLEM, FakeClock, FakeCluster, config, make, problem
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from running_service import PATIENCE_S

from inferno_milp.control.clock import SystemClock
from inferno_milp.control.controller import Controller
from inferno_milp.control.decide import Decider
from inferno_milp.control.fleet import ClusterError
from inferno_milp.control.lease import Lease
from inferno_milp.control.runner import Runner


def total(cluster, server):
    return sum(n for name, n in cluster.replicas().items() if name.startswith(server))


def rounds(controller, clock, count, seconds=60):
    reports = []
    for _ in range(count):
        reports.append(controller.run_round())
        clock.wait(seconds)
    return reports


def test_scales_up_at_once_and_down_after_a_while():
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    rounds(controller, clock, 1)
    few = total(cluster, "gold")
    controller.source.rates["gold"] = 25.0
    (report,) = rounds(controller, clock, 1)
    many = total(cluster, "gold")
    assert many > few
    assert any(step.outcome == "done" for step in report.steps)
    controller.source.rates["gold"] = 2.0
    held = rounds(controller, clock, 9)
    assert total(cluster, "gold") == many, "600 s have not passed"
    assert "holds" in held[-1].servers["gold"].reason
    rounds(controller, clock, 4)
    assert total(cluster, "gold") < many


def test_noise_does_not_make_it_flap():
    controller, cluster, clock = make({"gold": 10.0, "tin": 4.0})
    for i in range(60):
        controller.source.rates["gold"] = 10.0 * (1.25 if i % 3 == 0 else 0.75)
        rounds(controller, clock, 1)
    directions = {}
    before = dict.fromkeys(cluster.deployments, None)
    reversals = 0
    for name, after in cluster.calls:
        if before[name] is not None:
            direction = after > before[name]
            reversals += directions.get(name) not in (None, direction)
            directions[name] = direction
        before[name] = after
    assert reversals <= 1
    assert len(cluster.calls) <= 4


def test_a_frozen_server_is_left_alone_and_its_devices_are_nobody_elses():
    controller, cluster, clock = make(
        {"gold": 60.0, "tin": 3.0}, replicas={("gold", "A100"): (1, 32), ("tin", "A100"): (6, 32)}
    )
    controller.source.states["tin"] = "frozen"
    reports = rounds(controller, clock, 3)
    assert cluster.replicas()["tin-a100"] == 6
    assert cluster.replicas()["gold-a100"] == 2
    assert cluster.most["A100"] <= 8
    assert reports[-1].servers["tin"].target is None
    assert "told so" in reports[-1].servers["tin"].reason


def test_blind_it_changes_nothing():
    controller, cluster, clock = make({"gold": 5.0, "tin": 5.0})
    rounds(controller, clock, 2)
    before, calls = cluster.replicas(), len(cluster.calls)
    controller.source.states = {"gold": "frozen", "tin": "frozen"}
    controller.source.errors = ("arrivals_per_s: no answer in time",)
    (report,) = rounds(controller, clock, 1)
    assert (cluster.replicas(), len(cluster.calls)) == (before, calls)
    assert report.plan is None
    assert report.errors == controller.source.errors
    controller.source.states, controller.source.errors = {}, ()
    (report,) = rounds(controller, clock, 1)
    assert report.plan is not None, "it recovers by itself"


def test_shortage_goes_by_priority_and_never_below_minimum():
    controller, cluster, clock = make({"gold": 150.0, "tin": 150.0})
    reports = rounds(controller, clock, 5)
    assert reports[-1].plan.status == "partial" or not reports[-1].plan.serves_all
    assert total(cluster, "tin") >= 1
    assert total(cluster, "gold") > total(cluster, "tin")
    assert all(cluster.most[name] <= count for name, count in (("A100", 8), ("H100", 4)))


def test_capacity_that_drops_under_use_is_given_back():
    controller, cluster, clock = make({"gold": 20.0, "tin": 20.0}, capacity={"source": "nodes", "types": {"a": "A100"}})
    cluster.devices = {"A100": 8, "H100": 4}
    rounds(controller, clock, 3)
    cluster.devices = {"A100": 2, "H100": 1}
    reports = rounds(controller, clock, 16)
    held = reports[-1].capacity
    assert all(used <= count for count, used in held.values()), held
    assert total(cluster, "tin") >= 1
    assert total(cluster, "gold") >= 1


def test_foreign_devices_are_not_used():
    controller, cluster, clock = make({"gold": 80.0, "tin": 80.0}, capacity={"source": "nodes", "types": {"a": "A100"}})
    cluster.devices, cluster.foreign = {"A100": 8, "H100": 4}, {"A100": 5, "H100": 4}
    rounds(controller, clock, 3)
    assert cluster.most["A100"] <= 3
    assert cluster.most.get("H100", 0) == 0


def test_a_clock_that_jumps_is_told_and_does_no_harm():
    controller, cluster, clock = make({"gold": 10.0, "tin": 10.0})
    rounds(controller, clock, 12)
    before = cluster.replicas()
    clock.wall += 7200
    forward = controller.run_round()
    assert any("jumped by +7200" in error for error in forward.errors)
    clock.wait(60)
    clock.wall -= 10_000
    backward = controller.run_round()
    assert any("jumped by -10000" in error for error in backward.errors)
    assert cluster.replicas() == before
    rounds(controller, clock, 14)
    assert cluster.replicas() == before


@pytest.mark.parametrize("trouble", ["unavailable", "throttled", "forbidden", "conflict", "gone", "refused"])
def test_a_step_that_fails_is_told_and_made_later(trouble):
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    rounds(controller, clock, 1)
    controller.source.rates = {"gold": 25.0, "tin": 2.0}
    cluster.failures = [("scale", ClusterError(trouble, "injected"))]
    (report,) = rounds(controller, clock, 1)
    assert [step.outcome for step in report.steps].count("failed") == 1
    assert any("injected" in error for error in report.errors)
    cluster.failures = []
    (report,) = rounds(controller, clock, 1)
    assert {step.outcome for step in report.steps} == {"done"}
    assert not report.errors


def test_a_cluster_that_does_not_answer_is_a_state():
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    cluster.failures = [("read", ClusterError("unavailable", "HTTP 503"))]
    (report,) = rounds(controller, clock, 1)
    assert report.errors == ("cluster: unavailable: HTTP 503",)
    assert not report.steps
    (report,) = rounds(controller, clock, 1)
    assert not report.errors


def test_a_deployment_that_vanishes():
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    rounds(controller, clock, 1)
    for name in [name for name in cluster.deployments if name.startswith("tin")]:
        del cluster.deployments[name]
    (report,) = rounds(controller, clock, 1)
    assert report.servers["tin"].reason == "it has no deployment"
    assert report.plan is not None


class _KilledError(BaseException):
    pass


def test_killed_while_it_applies_another_goes_on_from_what_runs():
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    rounds(controller, clock, 12)
    controller.source.rates = {"gold": 40.0, "tin": 25.0}
    cluster.failures = [("scale", None), ("scale", _KilledError())]
    with pytest.raises(_KilledError):
        controller.run_round()
    half = cluster.replicas()
    another = Controller(controller.config, controller.problems, cluster, controller.source, clock)
    clock.wait(60)
    report = another.run_round()
    assert all(cluster.replicas()[name] >= count for name, count in half.items()), "nothing is taken on ignorance"
    clock.wait(60)
    report = another.run_round()
    assert report.plan.serves_all
    assert all(cluster.most[name] <= count for name, count in (("A100", 8), ("H100", 4)))


class LeaseBox:
    """Keeps one lease, with versions."""

    def __init__(self):
        self.lease, self.version, self.is_down = None, 0, False

    def read_lease(self):
        if self.is_down:
            raise ClusterError("unavailable", "down")
        return None if self.lease is None else dict(self.lease)

    def write_lease(self, holder, duration_s, now_s, before):
        if self.is_down:
            raise ClusterError("unavailable", "down")
        if (before or {}).get("version") != (self.lease or {}).get("version"):
            raise ClusterError("conflict", "changed")
        self.version += 1
        self.lease = {"holder": holder, "duration_s": duration_s, "transitions": 0, "version": str(self.version)}


def test_of_two_copies_one_acts_and_the_other_takes_over():
    box = LeaseBox()
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    first = Controller(
        controller.config, controller.problems, cluster, controller.source, clock, Lease(box, clock, "a", 30)
    )
    second = Controller(
        controller.config, controller.problems, cluster, controller.source, clock, Lease(box, clock, "b", 30)
    )
    assert first.run_round().role == "leader"
    controller.source.rates["gold"] = 25.0
    report = second.run_round()
    assert report.role == "follower"
    assert {step.outcome for step in report.steps} == {"told"}
    calls = len(cluster.calls)
    for _ in range(3):  # the first is gone
        clock.wait(15)
        report = second.run_round()
    assert report.role == "leader"
    assert len(cluster.calls) > calls
    assert first.run_round().role == "follower"
    box.is_down = True
    clock.wait(5)
    assert second.run_round().role == "leader", "its lease has not run out"
    clock.wait(30)
    lost = second.run_round()
    assert lost.role == "unknown"
    assert all(step.outcome == "told" for step in lost.steps)


def test_a_lease_that_is_given_up_is_free_at_once():
    box, clock = LeaseBox(), FakeClock()
    first, second = Lease(box, clock, "a", 30), Lease(box, clock, "b", 30)
    assert first.renew()
    assert not second.renew()
    first.give_up()
    assert not first.is_held
    assert second.renew()


def test_dry_run_changes_nothing():
    controller, cluster, clock = make({"gold": 25.0, "tin": 2.0}, actuation={"mode": "dry-run"})
    (report,) = rounds(controller, clock, 1)
    assert {step.outcome for step in report.steps} == {"told"}
    assert not cluster.calls
    assert not cluster.status


def test_the_status_is_kept_as_json():
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    rounds(controller, clock, 1)
    status = json.loads(cluster.status["status.json"])
    assert status["servers"]["gold"]["observation"]["rate_per_s"] == 2.0
    assert status["plan"]["status"] == "optimal"
    assert {d["name"] for d in status["deployments"]} == set(cluster.deployments)


def test_a_move_brings_the_new_before_it_takes_the_old():
    replicas = {("gold", "A100"): (1, 32), ("gold", "H100"): (0, 64)}
    found = problem(capacity={"A100": 8, "H100": 4})
    controller, cluster, clock = make({"gold": 1.0}, replicas=replicas, found=found, slow=True)
    seen = []
    for rate in [1.0] * 3 + [30.0] * 20 + [1.0] * 30:
        controller.source.rates["gold"] = rate
        rounds(controller, clock, 1)
        seen.append(total(cluster, "gold"))
    assert min(seen) >= 1


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    rates=st.lists(st.tuples(st.floats(0, 120), st.floats(0, 120)), min_size=3, max_size=6),
    capacity=st.tuples(st.integers(2, 8), st.integers(0, 4)),
    slow=st.booleans(),
    seconds=st.sampled_from([60, 400]),
)
def test_never_above_capacity_never_below_minimum(rates, capacity, slow, seconds):
    found = problem(capacity={"A100": capacity[0], "H100": capacity[1]})
    controller, cluster, clock = make({"gold": 0.0, "tin": 0.0}, found=found, slow=slow)
    for gold, tin in itertools.chain(rates, rates[::-1]):
        controller.source.rates = {"gold": gold, "tin": tin}
        (report,) = rounds(controller, clock, 1, seconds)
        assert not report.errors
        assert total(cluster, "gold") >= 1
        assert total(cluster, "tin") >= 1
        assert cluster.most.get("A100", 0) <= capacity[0]
        assert cluster.most.get("H100", 0) <= capacity[1]


def test_a_server_on_two_accelerators_is_kept_as_it_is_until_more_is_known():
    replicas = {("gold", "A100"): (2, 32), ("gold", "H100"): (1, 64), ("tin", "A100"): (1, 32)}
    controller, cluster, clock = make({"gold": 10.0, "tin": 2.0}, replicas=replicas)
    for _ in range(9):
        rounds(controller, clock, 1)
        assert (cluster.replicas()["gold-a100"], cluster.replicas()["gold-h100"]) == (2, 1)
    rounds(controller, clock, 6)
    assert total(cluster, "gold") < 3


def test_who_is_short_is_not_put_out_for_a_lower_priority():
    found = problem(capacity={"A100": 6, "H100": 0})
    replicas = {("gold", "A100"): (4, 32), ("tin", "A100"): (2, 32)}
    controller, cluster, clock = make({"gold": 80.0, "tin": 60.0}, replicas=replicas, found=found)
    for _ in range(20):
        (report,) = rounds(controller, clock, 1)
        assert cluster.replicas()["gold-a100"] >= 4
        assert cluster.replicas()["tin-a100"] >= 1
        targets = [sum(server.target.values()) for server in report.servers.values()]
        assert sum(targets) <= 6
    assert cluster.most["A100"] <= 6


def test_time_in_which_nothing_was_known_does_not_count():
    controller, cluster, clock = make({"gold": 40.0, "tin": 2.0})
    rounds(controller, clock, 30)
    many = total(cluster, "gold")
    controller.source.rates["gold"] = 2.0
    rounds(controller, clock, 1)
    controller.source.states["gold"] = "frozen"
    rounds(controller, clock, 11)
    controller.source.states = {}
    rounds(controller, clock, 1)
    assert total(cluster, "gold") == many


def test_a_replica_that_serves_is_not_taken_for_a_lower_priority():
    from dataclasses import replace

    from inferno_milp.control.fleet import Deployment, Fleet, Pod
    from inferno_milp.control.steps import next_steps

    found = problem(capacity={"A100": 2, "H100": 1})
    old = Deployment("llm", "gold-a100", "gold", "A100", 1, pods=(Pod("a", 0.0),))
    new = Deployment("llm", "gold-h100", "gold", "H100", 1, pods=(Pod("b", None),))
    tin = Deployment("llm", "tin-a100", "tin", "A100", 1, pods=(Pod("c", 0.0),))
    targets = {"gold": {"H100": 1}, "tin": {"A100": 2}}
    steps = next_steps(found, Fleet((old, new, tin)), {"A100": 2, "H100": 1}, targets, max_step=9)
    assert not steps.now
    assert "tin" in steps.waiting
    ready = replace(new, pods=(Pod("b", 0.0),))
    steps = next_steps(found, Fleet((old, ready, tin)), {"A100": 2, "H100": 1}, targets, max_step=9)
    assert [step.text for step in steps.now] == ["llm/gold-a100: 1 → 0"]


def test_a_slow_plan_renews_the_lease_before_it_acts():
    box = LeaseBox()
    controller, cluster, clock = make({"gold": 2.0, "tin": 2.0})
    parts = (controller.config, controller.problems, cluster, controller.source, clock)
    slow = Controller(*parts, Lease(box, clock, "a", 30))
    observe = controller.source.observe

    def slowly(*arguments):
        clock.wait(25)
        return observe(*arguments)

    controller.source.observe = slowly
    controller.source.rates["gold"] = 25.0
    report = slow.run_round()
    assert report.role == "leader"
    assert {step.outcome for step in report.steps} == {"done"}


@pytest.mark.parametrize("held", [0, 1])
def test_an_engine_that_lacks_the_adapters_is_left_at_once(held):
    """What runs is kept for a while where it may be right again; where it cannot be, there is nothing to wait for."""
    a100, h100 = PROBLEM["profiles"]
    load = {"rate_per_s": 1.0, "input_tokens": 200, "output_tokens": 100}
    gold, tin = ({**server, "load": load} for server in PROBLEM["servers"])
    wanted = problem(profiles=[{**a100, "max_adapters": held}, h100], servers=[{**gold, "adapters": ["x"]}, tin])
    clock = FakeClock()
    runs = {("gold", "A100"): (1, None), ("gold", "H100"): (0, None), ("tin", "A100"): (1, None)}
    fleet = FakeCluster(wanted, runs, clock).read(wanted)
    decision = Decider(config()).decide(wanted, fleet, clock.now_s())
    assert decision.targets["gold"] == ({"A100": 1} if held else {"H100": 1})
    assert decision.targets["tin"] == {"A100": 1}


def metrics(runner):
    """Return the desired replicas that a copy publishes, by deployment."""
    found = {}
    for family in text_string_to_metric_families(runner.published.text().decode()):
        for sample in family.samples:
            if sample.name == "inferno_desired_replicas":
                found[sample.labels["variant_name"]] = sample.value
    return found


def two_copies(**changes):
    """Two copies of a loop that publishes, of which the first leads."""
    box = LeaseBox()
    controller, cluster, clock = make({"gold": 25.0, "tin": 2.0}, actuation={"mode": "publish"}, **changes)
    parts = (controller.config, controller.problems, cluster, controller.source, clock)
    copies = [Runner(Controller(*parts, Lease(box, clock, name, 30)), controller.config) for name in "ab"]
    return copies, controller.source, cluster, clock, box


def test_every_copy_publishes_the_leaders_decision():
    (first, second), source, _, clock, _ = two_copies()
    decided = {d.name: d.desired for d in first.run_once().deployments}
    source.rates["gold"] = 90.0
    assert second.run_once().role == "follower"
    assert metrics(first) == metrics(second) == decided, "not what it would decide itself"
    clock.wait(5)
    decided = {d.name: d.desired for d in first.run_once().deployments}
    second.run_once()
    assert metrics(second) == decided


@pytest.mark.parametrize("trouble", ["the cluster", "the metrics", "the plan", "the store"])
def test_what_is_published_never_disappears(trouble, monkeypatch):
    """Nor does it become what runs, which is no decision, while an autoscaler is on its way to what was decided."""
    (first, second), source, cluster, clock, _ = two_copies()
    first.run_once()
    second.run_once()
    decided = metrics(first)
    assert decided["gold-a100"] > cluster.replicas()["gold-a100"]
    for _ in range(3):
        clock.wait(5)
        if trouble == "the cluster":
            cluster.failures = [("read", ClusterError("unavailable", "down"))] * 2
        elif trouble == "the store":
            cluster.failures = [("read_status", ClusterError("forbidden", "no"))]
        elif trouble == "the metrics":
            source.states = {"gold": "frozen", "tin": "frozen"}
        else:
            monkeypatch.setattr(Decider, "decide", lambda *arguments: None)
        for runner in (first, second):
            runner.run_once()
            assert metrics(runner) == decided
        cluster.failures = []


def test_a_new_leader_begins_with_what_was_decided():
    """While it observes nothing yet, it publishes the decision that it finds, before its first round as well."""
    (first, second), source, cluster, clock, box = two_copies()
    first.run_once()
    decided = metrics(first)
    first.stop()
    source.states = {"gold": "frozen", "tin": "frozen"}
    second.lead()
    assert second.run_once().role == "leader"
    assert metrics(second) == decided
    parts = (second._controller.config, second._controller.problems, cluster, source, clock, Lease(box, clock, "c", 30))
    third = Runner(Controller(*parts), second._config)
    third.stop()
    third.run()
    assert metrics(third) == decided


def test_the_lease_is_kept_between_rounds_and_passed_on_at_once():
    """It is shorter than the time between rounds; a copy that ends gives it up, and the next one acts at once."""
    (first, second), _, _, clock, box = two_copies()
    assert first.run_once().role == "leader"
    assert second.run_once().role == "follower"
    for _ in range(20):
        clock.wait(7.5)
        first.lead()
        second.lead()
        assert box.lease["holder"] == "a"
    assert not second._woken.is_set()
    clock.wait(25)  # it could not renew for a while
    first.stop()
    assert box.lease["holder"] == ""
    second.lead()
    assert box.lease["holder"] == "b"
    assert second._woken.is_set(), "it does a round now"


def test_the_lease_is_renewed_while_a_round_takes_long():
    (first, _), source, _, _, box = two_copies()
    first._config = config(lease={"duration_s": 0.4})
    first._controller.clock = first._controller.lease.clock = SystemClock()
    first._controller.lease.duration_s = 0.4
    begun, go_on = threading.Event(), threading.Event()
    observe = source.observe

    def slowly(*arguments):
        begun.set()
        go_on.wait(20)
        return observe(*arguments)

    source.observe = slowly
    thread = threading.Thread(target=first.run, daemon=True)
    thread.start()
    assert begun.wait(20)
    version, end = box.version, time.monotonic() + PATIENCE_S
    while box.version < version + 3:
        assert time.monotonic() < end, "it is not renewed"
        time.sleep(0.01)
    go_on.set()
    first.stop()
    thread.join(20)
    assert box.lease["holder"] == ""
