"""Prometheus that is down, slow, or says NaN, nothing, garbage or old news: each is a state with a reason."""

import json
import math
import shutil
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from control_parts import START_S, FakeClock, FakeCluster, config, problem
from exposed_engines import ENGINES, Page

from inferno_milp.control.collector import Collector
from inferno_milp.control.config import PrometheusSettings
from inferno_milp.control.controller import Controller
from inferno_milp.control.emulation.exporter import CLOCK
from inferno_milp.control.emulation.prometheus_process import PrometheusProcess
from inferno_milp.control.fleet import Deployment, Fleet, Pod
from inferno_milp.control.problems import FixedProblem
from inferno_milp.control.prometheus import PrometheusClient, PrometheusError
from inferno_milp.control.queries import QUERIES, fill_in

NAMES = list(QUERIES["vllm"])
FINE = {
    "arrivals_per_s": 2.0, "running": 5.0, "waiting": 1.0, "kv_use": 0.4, "sampled_at_s": START_S - 5,
    "input_tokens_sum": 600.0, "input_tokens_count": 2.0, "output_tokens_sum": 200.0, "output_tokens_count": 2.0,
    "ttft_s_sum": 0.4, "ttft_s_count": 2.0, "itl_s_sum": 4.0, "itl_s_count": 200.0,
}  # fmt: skip


class Oracle:
    """A server that answers as Prometheus does, with the figures that it is given by pod."""

    def __init__(self):
        self.pods = {"g-0": dict(FINE), "g-1": dict(FINE)}
        self.answer = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = []
        self.headers = []
        oracle = self
        texts = {
            fill_in(query, by="namespace, pod", selector="", window_s=120): name
            for name, query in QUERIES["vllm"].items()
        }

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                oracle.headers.append(dict(self.headers))
                query = parse_qs(body)["query"][0]
                oracle.asked.append(query)
                oracle.may_answer.wait()
                name = texts.get(query, query)
                status, text = oracle.answer(name) if oracle.answer else (200, oracle.result(name))
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text.encode())
                except ConnectionError:
                    pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def result(self, name):
        found = [
            {"metric": {"namespace": "llm", "pod": pod}, "value": [START_S, str(figures[name])]}
            for pod, figures in self.pods.items()
            if name in figures
        ]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}})


@pytest.fixture
def oracle():
    found = Oracle()
    yield found
    found.server.shutdown()
    found.server.server_close()


def fleet(ready_since_s=START_S - 5000, replicas=2):
    pods = tuple(Pod(f"g-{i}", ready_since_s) for i in range(replicas))
    return Fleet((Deployment("llm", "g", "gold", "A100", replicas, pods=pods, batch_size=32),))


def make(oracle, **changes):
    settings = PrometheusSettings.model_validate(
        {"url": oracle.url, "timeout_s": 60.0, "deadline_s": 120.0, "retries": 1, **changes}
    )
    return Collector(PrometheusClient(settings, lambda _: None), settings)


def gold(collector, now_s=START_S, found=None):
    observed = collector.observe(problem(), found or fleet(), now_s)
    return observed.servers["gold"], observed


def test_adds_up_and_divides(oracle):
    seen, observed = gold(make(oracle))
    assert seen.state == "fresh"
    assert (seen.rate_per_s, seen.input_tokens, seen.output_tokens) == (4.0, 300.0, 100.0)
    assert (seen.ttft_ms, seen.itl_ms) == pytest.approx((200.0, 20.0))
    assert (seen.running, seen.waiting, seen.kv_use) == (10.0, 2.0, 0.4)
    assert not observed.errors
    assert observed.deployments["llm/g"].rate_per_s == 4.0
    assert len(oracle.asked) == len(NAMES)


TROUBLES = {
    "NaN": (lambda figures: figures | {"arrivals_per_s": math.nan}, "arrivals_per_s is nan"),
    "infinite": (lambda figures: figures | {"running": math.inf}, "running is inf"),
    "negative": (lambda figures: figures | {"waiting": -3.0}, "absurd"),
    "absurd": (lambda figures: figures | {"arrivals_per_s": 1e9}, "absurd"),
    "old": (lambda figures: figures | {"sampled_at_s": START_S - 200}, "stale: 200 s old"),
    "from the future": (lambda figures: figures | {"sampled_at_s": START_S + 500}, "a clock is wrong"),
    "missing": (lambda figures: {}, "no arrivals_per_s in Prometheus"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_one_bad_pod_spoils_the_sum_and_the_last_good_value_stands_in(oracle, trouble):
    collector = make(oracle)
    gold(collector)
    change, words = TROUBLES[trouble]
    good = oracle.pods["g-1"]
    oracle.pods["g-1"] = change(good)
    seen, _ = gold(collector, START_S + 30)
    assert seen.state == "held"
    assert words.split()[0] in seen.reason
    assert seen.rate_per_s == 4.0
    seen, _ = gold(collector, START_S + 601)
    assert seen.state == "frozen"
    oracle.pods["g-0"] = FINE | {"sampled_at_s": START_S + 700}
    oracle.pods["g-1"] = FINE | {"sampled_at_s": START_S + 700}
    assert gold(collector, START_S + 700)[0].state == "fresh"


def test_without_a_last_good_value_it_is_frozen_at_once(oracle):
    oracle.pods = {}
    seen, _ = gold(make(oracle))
    assert seen.state == "frozen"
    assert "no arrivals_per_s in Prometheus" in seen.reason
    assert math.isnan(seen.rate_per_s)


def test_a_pod_that_has_just_begun_may_be_missing(oracle):
    del oracle.pods["g-1"]
    pods = (Pod("g-0", START_S - 5000), Pod("g-1", START_S - 10))
    found = Fleet((Deployment("llm", "g", "gold", "A100", 2, pods=pods, batch_size=32),))
    seen, _ = gold(make(oracle), found=found)
    assert (seen.state, seen.rate_per_s) == ("fresh", 2.0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "<html>"), "no JSON of Prometheus"),
        ((200, "[]"), "no JSON of Prometheus"),
        ((200, '{"status": "success", "data": 1}'), "in no known form"),
        ((200, '{"status": "success", "data": {"result": [{"metric": {}, "value": [0, "x"]}]}}'), "in no known form"),
        ((400, '{"status": "error", "error": "bad query"}'), "HTTP 400: bad query"),
        ((401, "denied"), "HTTP 401"),
        ((503, ""), "HTTP 503"),
    ],
)
def test_garbage_is_told(oracle, answer, words):
    collector = make(oracle)
    gold(collector)
    oracle.answer = lambda name: answer
    seen, observed = gold(collector, START_S + 30)
    assert seen.state == "held"
    assert words in " ".join(observed.errors)


def test_slow_and_down(oracle):
    collector = make(oracle)
    assert gold(collector)[0].state == "fresh"
    client = collector._client
    collector._client = PrometheusClient(
        PrometheusSettings.model_validate({"url": oracle.url, "timeout_s": 0.2, "deadline_s": 1.0, "retries": 1}),
        lambda _: None,
    )
    # Nothing is answered before it has given up: it returns at all by its own limits.
    oracle.may_answer.clear()
    seen, observed = gold(collector, START_S + 30)
    assert seen.state == "held"
    assert "no answer" in observed.errors[0]
    oracle.may_answer.set()
    collector._client = client
    oracle.server.shutdown()
    oracle.server.server_close()
    seen, observed = gold(collector, START_S + 60)
    assert seen.state == "held"
    assert observed.errors


def test_latencies_that_are_missing_are_no_reason_to_freeze(oracle):
    oracle.answer = lambda name: (500, "") if name.startswith(("ttft", "itl", "kv")) else (200, oracle.result(name))
    seen, observed = gold(make(oracle))
    assert seen.state == "fresh"
    assert math.isnan(seen.ttft_ms)
    assert math.isnan(seen.kv_use)
    assert observed.errors


def test_no_replicas(oracle):
    nothing = Fleet((Deployment("llm", "g", "gold", "A100", 0),))
    assert gold(make(oracle), found=nothing)[0].state == "idle"
    oracle.pods["x"] = {"gateway": 3.0}
    seen, _ = gold(make(oracle, arrivals={"gold": "gateway"}), found=nothing)
    assert seen.state == "frozen", "requests come, and their tokens are not known"
    loaded = problem()
    servers = [s.model_copy(update={"load": _load()}) for s in loaded.servers]
    loaded = loaded.model_copy(update={"servers": tuple(servers)})
    seen = make(oracle, arrivals={"gold": "gateway"}).observe(loaded, nothing, START_S).servers["gold"]
    assert (seen.state, seen.rate_per_s, seen.output_tokens) == ("fresh", 3.0, 50.0)


def _load():
    from inferno_milp.problem.loads import Load

    return Load(rate_per_s=1.0, input_tokens=100.0, output_tokens=50.0)


def test_a_token_is_read_anew(oracle, tmp_path):
    token = tmp_path / "token"
    collector = make(oracle, token_file=str(token))
    seen, observed = gold(collector)
    assert seen.state == "frozen"
    assert str(token) in observed.errors[0]
    token.write_text("secret\n")
    assert gold(collector)[0].state == "fresh"
    assert oracle.headers[-1]["Authorization"] == "Bearer secret"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
def test_a_real_prometheus_understands_every_query():
    with PrometheusProcess("127.0.0.1:9") as prometheus:
        for engine, queries in QUERIES.items():
            settings = PrometheusSettings(url=prometheus.url, engine=engine)
            client = PrometheusClient(settings)
            for selector in ("", 'job="vllm", zone=~"a|b"'):
                for query in queries.values():
                    text = fill_in(query, by="namespace, pod", selector=selector, window_s=90)
                    assert client.query(text, time.time()) == []
            with pytest.raises(PrometheusError, match="HTTP 400"):
                client.query("sum(", time.time())
            client.close()


def test_pods_that_are_not_measured_yet_take_nothing_from_the_rate(oracle):
    collector = make(oracle)
    assert gold(collector)[0].rate_per_s == 4.0
    oracle.pods = {"g-0": FINE | {"sampled_at_s": START_S + 30}}
    pods = (Pod("g-0", START_S - 5000), Pod("g-2", START_S + 20))
    found = Fleet((Deployment("llm", "g", "gold", "A100", 2, pods=pods, batch_size=32),))
    seen, _ = gold(collector, START_S + 35, found)
    assert (seen.state, seen.rate_per_s) == ("fresh", 4.0)
    assert "not measured yet" in seen.reason


def test_selectors_are_taken_as_they_are():
    text = fill_in(QUERIES["tgi"]["ttft_s_sum"], by="pod", selector='pod=~"a-[0-9]{1,}"', window_s=60)
    assert text.count('pod=~"a-[0-9]{1,}"') == 5
    assert 'method="prefill",pod=~' in text
    plain = fill_in(QUERIES["tgi"]["ttft_s_sum"], by="pod", selector="", window_s=60)
    assert '{method="prefill"}' in plain
    assert "{}" not in plain


NEEDED_FIGURES = [name for name in NAMES if not name.startswith(("ttft", "itl", "kv"))]
ONE_RULE = {
    "no answer": (lambda oracle, name: setattr(oracle, "answer", lambda asked: (500, "") if asked == name
                  else (200, oracle.result(asked))), "no answer to {}"),
    "missing": (lambda oracle, name: oracle.pods["g-1"].pop(name), "g-1: no {} in Prometheus"),
    "missing everywhere": (lambda oracle, name: [pod.pop(name) for pod in oracle.pods.values()], "no {} in Prometheus"),
    "of other pods": (lambda oracle, name: oracle.pods.update(other={name: oracle.pods["g-1"].pop(name)}),
                      "no {} in Prometheus"),
    "NaN": (lambda oracle, name: oracle.pods["g-1"].update({name: math.nan}), "g-1: {} is nan"),
    "infinite": (lambda oracle, name: oracle.pods["g-1"].update({name: math.inf}), "g-1: {} is inf"),
    "negative": (lambda oracle, name: oracle.pods["g-1"].update({name: -1.0}), "g-1: {} is -1"),
}  # fmt: skip
"""What can be wrong with any one figure, and how it is named."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trouble", ONE_RULE)
def test_one_rule_for_every_figure(oracle, trouble, name):
    """No figure that is wrong counts as 0: a needed one holds the server, another one is not known; both are named."""
    collector = make(oracle)
    before, _ = gold(collector)
    change, words = ONE_RULE[trouble]
    change(oracle, name)
    seen, observed = gold(collector, START_S + 30)
    if name in NEEDED_FIGURES:
        assert seen.state == "held"
        assert words.format(name) in seen.reason
        assert (seen.rate_per_s, seen.input_tokens, seen.output_tokens) == (4.0, 300.0, 100.0)
        return
    assert seen.state == "fresh"
    assert any(name in error for error in observed.errors), observed.errors
    figure = {"ttft_s": "ttft_ms", "itl_s": "itl_ms"}.get(name.rsplit("_", 1)[0], "kv_use")
    assert math.isnan(getattr(seen, figure))
    others = {"rate_per_s", "input_tokens", "output_tokens", "ttft_ms", "itl_ms", "running", "kv_use"} - {figure}
    assert all(getattr(seen, other) == getattr(before, other) for other in others)


def test_requests_without_output_are_absurd(oracle):
    collector = make(oracle)
    gold(collector)
    for figures in oracle.pods.values():
        figures["output_tokens_sum"] = 0.0
    seen, _ = gold(collector, START_S + 30)
    assert seen.state == "held"
    assert "absurd tokens per request" in seen.reason


@pytest.mark.parametrize(("value", "words"), [(None, "no series"), (-1.0, "a series is -1"), (math.nan, "is nan")])
def test_a_gateway_that_is_wrong_is_named(oracle, value, words):
    collector = make(oracle, arrivals={"gold": "gateway"})
    oracle.pods["x"] = {"gateway": 3.0}
    oracle.pods["y"] = {"gateway": 2.0}
    assert gold(collector)[0].rate_per_s == 5.0
    oracle.pods["x"] = {} if value is None else {"gateway": value}
    if value is None:
        del oracle.pods["y"]["gateway"]
    seen, observed = gold(collector, START_S + 30)
    assert (seen.state, seen.rate_per_s) == ("held", 5.0)
    assert any(f"arrivals of gold: {words}" in error or words in error for error in observed.errors)


def test_a_query_that_fails_for_long_takes_no_replica(oracle):
    """Through the loop: five replicas at full load stay five while the tokens are not known, however long."""
    found, clock = problem(), FakeClock()
    cluster = FakeCluster(found, {("gold", "A100"): (5, 32), ("tin", "A100"): (1, 32)}, clock)
    names = [f"{name}-{i}" for name, count in (("gold-a100", 5), ("tin-a100", 1)) for i in range(count)]

    def measure():
        each = FINE | {"sampled_at_s": clock.now_s() - 5, "arrivals_per_s": 6.0}
        oracle.pods = {name: dict(each) for name in names}

    collector = make(oracle)
    controller = Controller(config(), FixedProblem(found), cluster, collector, clock)
    measure()
    controller.run_round()
    at_full_load = cluster.replicas()["gold-a100"]
    assert at_full_load >= 5
    names += [f"gold-a100-{i}" for i in range(5, at_full_load)]
    oracle.answer = lambda name: (500, "") if name == "output_tokens_sum" else (200, oracle.result(name))
    for _ in range(30):
        clock.wait(60)
        measure()
        report = controller.run_round()
    assert cluster.replicas()["gold-a100"] == at_full_load
    assert "no answer to output_tokens_sum" in report.servers["gold"].reason


@contextmanager
def prometheus_of(engine, **shown):
    """A collector of a real Prometheus that has eight scrapes of an engine, and the time of the last one."""
    # Prometheus stamps some samples with the machine's time, and takes none that are far from it.
    start = time.time() // 60 * 60 - 3600
    with Page() as page, PrometheusProcess(page.address) as prometheus:
        settings = PrometheusSettings(url=prometheus.url, engine=ENGINES[engine].name)
        for step in range(8):
            page.show(ENGINES[engine], start + 30 * step, step, **shown)
            prometheus.wait_for(CLOCK, start + 30 * step)
        with closing(PrometheusClient(settings)) as client:
            yield Collector(client, settings), start + 210


needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")


@needs_prometheus
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_are_read_as_they_are_exposed(engine):
    """A real Prometheus, and the names of each engine's versions: one pod is busy, one has served nothing yet."""
    with prometheus_of(engine) as (collector, now_s):
        observed = collector.observe(problem(), fleet(now_s - 5000), now_s)
    seen = observed.servers["gold"]
    assert (seen.state, seen.reason, observed.errors) == ("fresh", "", ())
    assert seen.rate_per_s == pytest.approx(2.0)
    assert (seen.input_tokens, seen.output_tokens) == pytest.approx((300.0, 100.0))
    assert (seen.ttft_ms, seen.itl_ms) == pytest.approx((200.0, 20.0))
    assert seen.running == 5.0
    assert seen.kv_use == (0.0 if engine == "tgi" else 0.4)


@needs_prometheus
def test_a_busy_engine_that_lacks_a_series_is_not_idle():
    with prometheus_of("sglang", without="sglang:generation_tokens_total") as (collector, now_s):
        seen = collector.observe(problem(), fleet(now_s - 5000), now_s).servers["gold"]
    assert seen.state == "frozen"
    assert "g-0: no output_tokens_sum in Prometheus" in seen.reason
