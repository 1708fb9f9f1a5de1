"""The emulated cluster: its engines against the simulator, its pods, and the loop over hours with a real Prometheus."""

import math
import shutil

import numpy as np
import pytest

import inferno_milp as im
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.emulation.cluster import EmulatedCluster, Served
from inferno_milp.control.emulation.day import Emulation, run_controlled, run_static, run_threshold, scaled
from inferno_milp.control.emulation.engine import Replica, Request
from inferno_milp.control.emulation.load import Day, draw_requests
from inferno_milp.control.emulation.timeline import judge
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Profile
from inferno_milp.simulation.engine import Engine, run

TIMES = {"alpha_ms": 7.0, "beta_ms": 0.06, "gamma_ms": 9.0, "delta_ms": 0.02, "kappa_ms": 1e-5}
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")


@pytest.fixture(scope="module")
def fleet():
    return im.read_problem("instances/fleet.yaml")


@pytest.mark.parametrize("budget", [8192, 512, 60])
@pytest.mark.parametrize("batch", [64, 4])
@pytest.mark.parametrize("extra", [{}, {"overhead_ms": 12.0, "prefill_quadratic_ms": 1e-6}])
def test_engines_are_those_of_the_simulator(budget, batch, extra):
    rng = np.random.default_rng(budget + batch)
    count, rate = 800, 1.0 if batch == 4 else 6.0
    arrivals = np.cumsum(rng.exponential(1000 / rate, count))
    inputs, outputs = rng.integers(1, 1500, count), rng.geometric(1 / 120, count)
    engine = Engine(**TIMES, **extra, max_batch=batch, max_queue=10**6, token_budget=budget)
    expected = run(engine, arrivals, inputs, outputs, compiled=False)
    requests = [Request(a, int(i), int(o)) for a, i, o in zip(arrivals.tolist(), inputs, outputs, strict=True)]
    profile = Profile(model="m", accelerator="a", max_batch_size=batch, token_budget=budget, **TIMES, **extra)
    done = []
    replica = Replica(profile, batch, lambda request: None, done.append)
    coming = iter(requests)
    following = next(coming)
    for until in np.arange(700.0, arrivals[-1] + 10**7, 700.0):
        while following is not None and following.arrival_ms < until:
            replica.waiting.append(following)
            following = next(coming, None)
        replica.advance(until)
        if len(done) == count:
            break
    assert [r.first_ms - r.arrival_ms for r in requests] == pytest.approx(expected.ttft_ms.tolist(), abs=1e-6)
    assert [r.last_ms - r.arrival_ms for r in requests] == pytest.approx(expected.end_to_end_ms.tolist(), abs=1e-6)
    assert replica.is_idle


def test_the_kv_cache_is_never_overfull():
    profile = Profile(model="m", accelerator="a", kv_tokens=3000, **TIMES)
    replica = Replica(profile, 64, lambda request: None, lambda request: None)
    replica.waiting.extend(Request(0.0, 500, 200) for _ in range(40))
    most = 0.0
    for until in range(50, 60_000, 50):
        replica.advance(float(until))
        most = max(most, (replica._context + replica._done_tokens) / 3000)
        assert replica.running <= 4
    assert replica.is_idle
    assert 0.5 < most <= 1


def test_the_load_follows_the_day():
    day = Day(hours=10, trough=0.2, burst=3.0)
    load = Load(rate_per_s=20.0, input_tokens=100, output_tokens=10)
    rng = np.random.default_rng(0)
    for share in (0.1, 0.31, 0.6, 0.9):
        at = share * day.length_s
        requests = list(draw_requests(rng, load, day, at, at + 300))
        expected = 20 * 300 * day.factor(at + 150)
        assert abs(len(requests) - expected) < 5 * math.sqrt(expected)
        assert all(at * 1000 <= r.arrival_ms <= (at + 300) * 1000 for r in requests)
    assert day.peak == pytest.approx(max(1.0, 3 * day.factor(0.31 * day.length_s) / 3), rel=0.3)


def deployed(problem, replicas):
    cluster = EmulatedCluster(problem, 1.7e9, startup_s=60.0)
    batches = {(server, name): 64 for server, counts in replicas.items() for name in counts}
    cluster.deploy(replicas, batches)
    return cluster


def test_pods_start_go_and_wait_for_devices(fleet):
    cluster = deployed(fleet, {"interactive-chat-8b": {"H100": 9}, "interactive-code-30b": {"H100": 0}})
    one, two = cluster.read().deployments
    assert (one.ready, two.ready) == (9, 0)
    cluster.scale(two, 3)
    cluster.advance(30.0, {})
    assert sum(pod.is_placed for pod in cluster.pods) == 10, "there are 10 devices"
    assert cluster.most_held["H100"] == 12, "more was asked for than there is, and it is noted"
    cluster.advance(70.0, {})
    assert cluster.read().deployments[1].ready == 1
    cluster.scale(cluster.read().deployments[0], 1)
    cluster.advance(75.0, {})
    cluster.advance(140.0, {})
    assert [d.ready for d in cluster.read().deployments] == [1, 3]


def test_requests_are_finished_by_pods_that_go(fleet):
    cluster = deployed(fleet, {"interactive-chat-8b": {"H100": 2}})
    requests = [Request(float(i), 200, 100) for i in range(100)]
    cluster.advance(1.0, {"interactive-chat-8b": requests})
    cluster.scale(cluster.read().deployments[0], 0)
    cluster.advance(30.0, {})
    assert len(cluster.served) == 100
    assert not cluster.pods


def test_promises_are_judged_by_windows(fleet):
    good = [Served("interactive-chat-8b", 10.0, 100.0, 10.0)] * 30
    bad = [Served("interactive-chat-8b", 400.0, 900.0, 10.0)] * 10
    assert judge(fleet, good) == (30, 30)
    assert judge(fleet, good + bad) == (40, 30)


def test_a_static_plan_for_the_peak_keeps_its_promises_and_half_of_it_does_not(fleet):
    day = Day(hours=1.0, burst=1.0, trough=0.9)
    kept = {}
    for factor in (1.0, 0.3):
        emulation = Emulation(fleet, day)
        emulation.begin(factor)
        kept[factor] = emulation.run().attainment
    assert kept[1.0] > 0.99
    assert kept[0.3] < 0.9


def test_thresholds_scale(fleet):
    emulation = Emulation(scaled(fleet, 0.5), Day(hours=1.0))
    emulation.begin(0.2)
    timeline = run_threshold(emulation, dict.fromkeys((s.name for s in fleet.servers), 10.0))
    assert timeline.changes > 3
    assert timeline.rows[-1].cost_per_hour > 0


def test_a_window_of_a_day_has_the_loads_of_its_hours():
    """However short it is: a day that is pressed into minutes changes faster than a replica starts."""
    whole = Day()
    for begin in (0.0, 7.0, 23.5):
        window = Day(hours=1.0, whole_hours=24.0, begin_hour=begin)
        for minute in (0, 15, 45):
            assert window.factor(60 * minute) == pytest.approx(whole.factor((begin * 60 + minute) * 60))
        assert window.peak == whole.peak


def test_requests_that_wait_at_the_end_are_counted(fleet):
    """Else those that are never served would be the best of all."""
    emulation = Emulation(scaled(fleet, 1.0), Day(hours=0.2, burst=1.0, trough=0.9))
    emulation.begin(0.05)
    timeline = emulation.run()
    waiting = sum(1 for s in fleet.servers for _ in emulation.cluster.without_first_token(s.name))
    assert waiting > 1000
    assert timeline.requests > len(emulation.cluster.served) + 0.9 * waiting
    assert timeline.kept <= len(emulation.cluster.served)


def test_the_static_plan_has_the_same_requests_and_the_peak_of_the_whole_day(fleet):
    emulation = Emulation(fleet, Day(hours=0.1, whole_hours=24.0, begin_hour=8.0), seed=2)
    static = run_static(emulation)
    emulation.begin(emulation.day.factor(0.0))
    timeline = emulation.run()
    assert [row.rate_per_s for row in static.rows] == [row.rate_per_s for row in timeline.rows]
    assert static.mean_cost_per_hour > timeline.mean_cost_per_hour
    assert static.attainment > 0.99


@needs_prometheus
def test_the_same_seed_gives_the_same_figures(fleet):
    """Whatever the machine's speed, so that documents may show them."""
    found = []
    for _ in range(2):
        emulation = Emulation(fleet, Day(hours=0.15, whole_hours=24.0, begin_hour=7.1), seed=5)
        emulation.begin(emulation.day.factor(0.0))
        found.append(run_controlled(emulation, ControlConfig(problem="fleet.yaml")).to_dict())
    assert found[0] == found[1]
    assert found[0]["changes"] > 0


@needs_prometheus
def test_the_loop_through_an_api_server(fleet):
    """Real Prometheus, real client, and an API server that keeps versions and conflicts, and fails now and then."""
    pytest.importorskip("kubernetes")
    from api_double import running_double
    from emulated_api import ClusterBehindApi

    from inferno_milp.control.api_server import ApiServer
    from inferno_milp.control.kubernetes_cluster import KubernetesCluster

    day, config = Day(hours=1.0, burst=3.0), ControlConfig(problem="fleet.yaml")
    straight = Emulation(fleet, day, seed=3)
    straight.begin(day.factor(0.0))
    expected = run_controlled(straight, config)
    emulation = Emulation(fleet, day, seed=3)
    asked = []

    def fails(method, path):
        asked.append(path)
        return {0: 429, 7: 500, 13: 503}.get(len(asked) % 20)

    with running_double() as double:
        emulation.cluster = ClusterBehindApi.of(emulation.cluster, double)
        emulation.begin(day.factor(0.0))
        double.faults = fails
        server = ApiServer(config.kubernetes, double.client(), lambda _: None)
        timeline = run_controlled(emulation, config, KubernetesCluster(config, server))
        status = double.objects["configmaps", config.lease.namespace, config.lease.status]
    assert not timeline.errors
    assert timeline.changes > 3
    assert timeline.requests == pytest.approx(expected.requests, rel=0.01)
    assert timeline.mean_cost_per_hour == pytest.approx(expected.mean_cost_per_hour, rel=0.1)
    assert timeline.attainment == pytest.approx(expected.attainment, abs=0.1)
    least = {s.name: s.min_replicas for s in fleet.servers}
    assert all(sum(row.running.values()) >= least[row.server] for row in timeline.rows)
    assert '"round": 60' in status["data"]["status.json"]
    limits = fleet.devices_available
    assert all(timeline.most_held[name] <= limits[name] for name in timeline.most_held)


@needs_prometheus
def test_the_loop_over_hours(fleet):
    """Against a real Prometheus: a day in an hour and a half, with a burst."""
    emulation = Emulation(scaled(fleet, 0.7), Day(hours=1.5, burst=3.0), seed=3)
    emulation.begin(emulation.day.factor(0.0))
    reports = []
    emulation.on_round = lambda timeline, report: reports.append(report)
    timeline = run_controlled(emulation, ControlConfig(problem="fleet.yaml"))
    assert not timeline.errors
    assert len(reports) == 90
    states = {server.observation.state for report in reports[3:] for server in report.servers.values()}
    assert states <= {"fresh", "held"}
    offered = [row for row in timeline.rows if row.server == "interactive-chat-8b"]
    seen = [report.servers["interactive-chat-8b"].observation.rate_per_s for report in reports]
    middle = range(40, 80)
    assert np.mean([seen[i] for i in middle]) == pytest.approx(
        np.mean([offered[i].rate_per_s for i in middle]), rel=0.1
    )
    assert all(count <= timeline.available[name] for name, count in timeline.most_held.items())
    minimums = {s.name: s.min_replicas for s in fleet.servers}
    assert all(sum(row.running.values()) >= minimums[row.server] for row in timeline.rows)
    assert timeline.attainment > 0.7
    assert timeline.reversals <= 12
    peak = Emulation(scaled(fleet, 0.7), emulation.day, seed=3)
    peak.begin(emulation.day.peak)
    assert timeline.mean_cost_per_hour < peak.run().mean_cost_per_hour


def test_without_prometheus_it_is_said(fleet, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    emulation = Emulation(fleet, Day(hours=0.1))
    emulation.begin(0.2)
    with pytest.raises(im.OptionError, match="an emulation needs Prometheus"):
        run_controlled(emulation, ControlConfig(problem="fleet.yaml"))
