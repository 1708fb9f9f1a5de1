"""The table of candidates: what is in it, what is not, and why."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError
from small_problems import make_problem, problem_data, with_server

from inferno_milp.columns import candidates
from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.options import make_program
from inferno_milp.planning.optimize import optimize
from inferno_milp.planning.reasons import Rejection, find_rejections, why_left_out
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import with_settings
from inferno_milp.queueing import size

LOAD = {"rate_per_s": 4.0, "input_tokens": 200.0, "output_tokens": 100.0}


def rejections(table: Candidates) -> list[Rejection]:
    return list(find_rejections(table, make_program(table)))


def why(table: Candidates, server: int) -> str:
    return why_left_out(table, make_program(table), server)


def names(table: Candidates) -> list[str]:
    return [table.problem.accelerators[a].name for a in table.rows.accelerator]


def test_rate_replicas_cost_and_devices() -> None:
    table = find_candidates(make_problem())
    assert names(table) == ["A", "B", "2xB"]
    assert table.types == ("A", "B")
    sizing = size(
        "inferno", alpha_ms=20.0, beta_ms=0.4, gamma_ms=25.0, delta_ms=0.1, input_tokens=200, output_tokens=100,
        max_batch=16, ttft_ms=1000.0, itl_ms=30.0,
    )  # fmt: skip
    assert table.rows.max_rate_per_s[0] == pytest.approx(float(sizing.analysis.throughput_per_s))
    for i, (price, devices) in enumerate([(10.0, 1), (25.0, 1), (50.0, 2)]):
        replicas = int(np.ceil(4.0 / table.rows.max_rate_per_s[i]))
        assert table.rows.replicas[i] == replicas
        assert table.rows.cost_per_hour[i] == replicas * price
        assert table.rows.devices[i] == replicas * devices


def test_a_replica_may_take_several_accelerators() -> None:
    data = problem_data()
    data["profiles"][0]["accelerators_per_replica"] = 3
    plain, tripled = find_candidates(make_problem()), find_candidates(Problem.model_validate(data))
    assert tripled.rows.cost_per_hour[0] == 3 * plain.rows.cost_per_hour[0]
    assert tripled.rows.devices[0] == 3 * plain.rows.devices[0]


def test_min_replicas() -> None:
    table = find_candidates(with_server(min_replicas=7))
    assert (table.rows.replicas >= 7).all()


def test_batch_size_is_what_the_memory_holds_at_the_output_length() -> None:
    data = problem_data()
    for profile in data["profiles"]:
        profile["at_output_tokens"] = 150.0
    table = find_candidates(Problem.model_validate(data))
    assert table.rows.batch_size.tolist() == [24, 96, 192]  # 16, 64, 128 at 150 tokens, load of 100
    data["servers"][0]["load"]["output_tokens"] = 100_000.0
    data["service_classes"][0]["targets"]["m"] = {}
    assert set(find_candidates(Problem.model_validate(data)).rows.batch_size.tolist()) == {1}


def test_a_server_fixes_its_batch_and_queue() -> None:
    table = find_candidates(with_server(max_batch_size=5, max_queue_size=0))
    assert set(table.rows.batch_size.tolist()) == {5}
    sizing = size(
        "inferno", alpha_ms=20.0, beta_ms=0.4, gamma_ms=25.0, delta_ms=0.1, input_tokens=200, output_tokens=100,
        max_batch=5, max_queue=0, ttft_ms=1000.0, itl_ms=30.0,
    )  # fmt: skip
    assert table.rows.max_rate_per_s[0] == pytest.approx(float(sizing.analysis.throughput_per_s))


def test_every_batch_size() -> None:
    problem = make_problem().with_options(batch_sizes="every")
    table = find_candidates(problem)
    batches = table.rows.batch_size[table.rows.accelerator == 0]
    assert batches.tolist() == list(range(1, 17))
    best = table.one_per_accelerator()
    assert names(best) == ["A", "B", "2xB"]
    for a in range(3):
        of_a = table.rows.take(table.rows.accelerator == a)
        least = of_a.cost_per_hour.min()
        assert best.rows.cost_per_hour[a] == least
        assert best.rows.batch_size[a] == of_a.batch_size[of_a.cost_per_hour == least].min()


def test_keep_accelerator() -> None:
    problem = with_server(keep_accelerator=True, current={"accelerator": "B", "replicas": 2})
    table = find_candidates(problem)
    assert names(table) == ["B"]
    assert {r.accelerator: r.reason for r in rejections(table)} == {
        "A": "the server keeps B",
        "2xB": "the server keeps B",
    }


class TestRequiredRate:
    def test_a_tps_target_asks_for_more_than_is_offered(self) -> None:
        """The seed takes the promised rate in place of the offered one; required is the larger of the two."""
        classes = [{"name": "gold", "targets": {"m": {"tps": 2000.0}}}]
        low = find_candidates(make_problem(service_classes=classes))
        assert low.required_rate_per_s[0] == pytest.approx(20.0)
        data = problem_data(service_classes=classes)
        data["servers"][0]["load"]["rate_per_s"] = 50.0
        assert find_candidates(Problem.model_validate(data)).required_rate_per_s[0] == pytest.approx(50.0)

    def test_no_load_no_minimum_needs_nothing(self) -> None:
        for load in (None, {**LOAD, "rate_per_s": 0.0}):
            table = find_candidates(with_server(load=load))
            assert not table.needs[0]
            assert len(table.rows) == 0
            assert not table.unservable.size
            assert rejections(table) == []

    def test_no_load_gets_its_minimum(self) -> None:
        table = find_candidates(with_server(load=None, min_replicas=2))
        assert table.rows.replicas.tolist() == [2, 2, 2]
        assert np.isnan(table.rows.max_rate_per_s).all()
        assert table.rows.batch_size.tolist() == [16, 64, 128]

    def test_targets_hold_even_for_a_rate_of_nothing(self) -> None:
        data = problem_data()
        data["servers"][0] |= {"load": {**LOAD, "rate_per_s": 0.0}, "min_replicas": 1}
        data["service_classes"][0]["targets"]["m"] = {"itl_ms": 15.0}
        assert names(find_candidates(Problem.model_validate(data))) == ["B", "2xB"]


def test_free_devices_are_not_wasted() -> None:
    """Among equal costs the fewest devices win, and greedy finds room for the server."""
    free = [{**a, "cost_per_hour": 0.0} for a in problem_data()["accelerators"]]
    servers = [{**problem_data()["servers"][0], "load": {**LOAD, "rate_per_s": 20.0}}]
    problem = make_problem(accelerators=free, servers=servers, capacity={"A": 5, "B": 0})
    problem = problem.with_options(batch_sizes="every")
    table = find_candidates(problem)
    least = table.rows.replicas[table.rows.accelerator == 0].min()
    assert table.one_per_accelerator().rows.replicas[0] == least == 5
    assert optimize(problem, solver="greedy").serves_all
    unlimited = optimize(problem.with_unlimited_capacity()).servers[0].allocations[0]
    assert unlimited.devices == table.rows.devices.min()


def test_more_devices_than_can_be_counted() -> None:
    accelerators = [{"type": a["name"], **a, "devices": 10**9} for a in problem_data()["accelerators"]]
    profiles = [{**p, "accelerators_per_replica": 10**9} for p in problem_data()["profiles"]]
    table = find_candidates(make_problem(accelerators=accelerators, profiles=profiles))
    assert len(table.rows) == 0
    assert {r.reason for r in rejections(table)} == {"would take more than 1,000,000,000,000 devices"}


def test_the_least_rate_still_takes_a_replica() -> None:
    table = find_candidates(with_server(load={**LOAD, "rate_per_s": 5e-324}))
    assert table.rows.replicas.tolist() == [1, 1, 1]


def test_memory_and_check_agree_on_the_largest_batch() -> None:
    """191 · 256 / 76.4 is 640 to the digits of a double, and 639 by floor division: there is one rule."""
    data = problem_data()
    data["profiles"] = [{**p, "max_batch_size": 191, "at_output_tokens": 256} for p in data["profiles"]]
    data["servers"][0]["load"]["output_tokens"] = 76.4
    problem = Problem.model_validate(data)
    assert set(find_candidates(problem).rows.batch_size.tolist()) == {problem.profiles[0].largest_batch(76.4)}
    assert optimize(problem).serves_all


def test_candidates_that_are_dropped_have_a_reason_too() -> None:
    servers = [{**problem_data()["servers"][0], "load": {**LOAD, "rate_per_s": 60.0}}]
    table = find_candidates(make_problem(servers=servers, capacity={"A": 3, "B": 3}))
    assert {r.accelerator: r.reason for r in rejections(table)} == {
        "A": "it needs 13 A (3 available)",
        "2xB": "B costs 50, not 50, and takes no more B",
    }
    unlimited = find_candidates(make_problem(servers=servers, capacity="unlimited"))
    reasons = {r.accelerator: r.reason for r in rejections(unlimited)}
    assert reasons == {"A": "B costs 50, not 130", "2xB": "B costs 50, not 50"}


class TestReasons:
    def reasons(self, **changes: Any) -> dict[str, str]:
        return {r.accelerator: r.reason for r in rejections(find_candidates(make_problem(**changes)))}

    def test_latency_floor(self) -> None:
        classes = [{"name": "gold", "targets": {"m": {"itl_ms": 6.0, "ttft_ms": 12.0}}}]
        reasons = self.reasons(service_classes=classes)
        assert reasons["A"] == (
            "ITL at least 20.4 ms at batch 16, target 6 ms; TTFT at least 45 ms at batch 16, target 12 ms"
        )
        assert "2xB" not in reasons

    def test_digits_enough_to_see_the_miss(self) -> None:
        classes = [{"name": "gold", "targets": {"m": {"itl_ms": 20.3999}}}]
        least = float(self.reasons(service_classes=classes)["A"].split("at least ")[1].split(" ms")[0])
        assert least > 20.3999

    def test_no_profile(self) -> None:
        profiles = problem_data()["profiles"][:1]
        assert self.reasons(profiles=profiles)["B"] == "no profile of m on B"

    def test_no_time(self) -> None:
        profiles = problem_data()["profiles"]
        profiles[0] |= {"alpha_ms": 0.0, "beta_ms": 0.0, "gamma_ms": 0.0, "delta_ms": 0.0}
        assert self.reasons(profiles=profiles)["A"].startswith("by its profile such requests take no time")

    def test_of_every_batch_size_the_nearest_is_named(self) -> None:
        """At the lowest rate the time to first token falls with the batch, so the smallest batch is not the nearest."""
        data = problem_data(service_classes=[{"name": "gold", "targets": {"m": {"ttft_ms": 14.0000001}}}])
        problem = Problem.model_validate(data).with_options(batch_sizes="every")
        table = find_candidates(problem)
        reasons = {r.accelerator: r.reason for r in rejections(table)}
        sizing = size(
            "inferno", alpha_ms=8.0, beta_ms=0.1, gamma_ms=10.0, delta_ms=0.02, input_tokens=200, output_tokens=100,
            max_batch=np.arange(1, 65), ttft_ms=14.0000001,
        )  # fmt: skip
        assert set(sizing.verdict) == {"infeasible"}
        nearest = int(np.argmin(sizing.analysis.ttft_ms)) + 1
        assert f"at batch {nearest}, target 14.0000001 ms" in reasons["B"]

    def test_nearest_miss(self) -> None:
        classes = [{"name": "gold", "targets": {"m": {"itl_ms": 2.0}}}]
        table = find_candidates(make_problem(service_classes=classes))
        assert table.unservable.tolist() == [0]
        reason = why(table, 0)
        assert reason.startswith("no accelerator can serve it; nearest is 2xB: ITL at least 5.05 ms")

    def test_too_large_for_the_capacity(self) -> None:
        servers = [{**problem_data()["servers"][0], "load": {**LOAD, "rate_per_s": 60.0}}]
        table = find_candidates(make_problem(servers=servers, capacity={"A": 1, "B": 0}))
        assert not table.unservable.size
        assert make_program(table).left_out.tolist() == [0]
        assert "(1 available)" in why(table, 0)


def test_among_equals_the_smallest_batch_stays() -> None:
    problem = make_problem().with_options(batch_sizes="every")
    table = find_candidates(problem)
    program = make_program(table)
    kept = program.table.rows.take(program.useful_rows())
    for row in range(len(kept)):
        twins = (table.rows.type == kept.type[row]) & (table.rows.cost_per_hour == kept.cost_per_hour[row])
        twins &= table.rows.devices == kept.devices[row]
        assert kept.batch_size[row] == table.rows.batch_size[twins].min()


def test_percentile_targets_and_their_misses() -> None:
    """Of several promises each is told that is missed, with its statistic."""
    targets = {"ttft_ms": {"mean": 1000.0, "p99": 20.0}, "itl_ms": {"p95": 30.0}}
    problem = make_problem(
        service_classes=[{"name": "gold", "targets": {"m": targets}}], options={"batch_sizes": "largest"}
    )
    table = find_candidates(problem)
    assert names(table) == ["B", "2xB"]
    (reason,) = [r.reason for r in rejections(table) if r.accelerator == "A"]
    assert reason.startswith("TTFT p99 at least 45 ms at batch 16, target 20 ms")


def test_memory_holds_the_batches_down() -> None:
    """0.9 · 3000 / (200 + 100) = 9 requests; none of 300 tokens fits into 250."""
    data = problem_data(options={})
    data["profiles"][0] = {**data["profiles"][0], "kv_tokens": 3000}
    data["profiles"][1] = {**data["profiles"][1], "kv_tokens": 250}
    table = find_candidates(Problem.model_validate(data))
    assert table.rows.batch_size[table.rows.accelerator == 0].tolist() == list(range(1, 10))
    (reason,) = [r.reason for r in rejections(table) if r.accelerator == "B"]
    assert reason.endswith("do not fit into 250 tokens of KV cache")


def test_a_queue_so_short_that_bursts_are_turned_away() -> None:
    load = {"rate_per_s": 1.0, "input_tokens": 200.0, "output_tokens": 100.0, "cv2_arrival": 6.0}
    server = {"service_class": "gold", "model": "m", "load": load, "max_queue_size": 0, "max_batch_size": 1}
    table = find_candidates(make_problem(servers=[server], options={}))
    assert {r.reason for r in rejections(table)} == {
        "its queue is so short that at any rate more than 0.01 of the requests are turned away"
    }


def test_the_newer_form_of_a_profile() -> None:
    """Without γ and δ: α and β. One of them alone, or no memory at all, is refused."""
    data = problem_data(options={})
    profile = {k: v for k, v in data["profiles"][0].items() if k not in ("gamma_ms", "delta_ms", "max_batch_size")}
    data["profiles"] = [{**profile, "kappa_ms": 1e-4, "kv_tokens": 90_000}]
    read = Problem.model_validate(data).profiles[0]
    assert (read.gamma_ms, read.delta_ms, read.max_batch_size) == (20.0, 0.4, 256)
    for wrong in ({"gamma_ms": 3.0}, {"kv_tokens": None}):
        data["profiles"] = [{**profile, "kv_tokens": 90_000, **wrong}]
        with pytest.raises(ValidationError):
            Problem.model_validate(data)


class TestWhatIsKnown:
    """Servers that are the same are not analysed again, and the table is the same all the same."""

    CHANGES: ClassVar = {
        "nothing": {},
        "devices and limits": {"capacity.A": 3, "options.max_cost_per_hour": 5, "options.assignment": "mixed"},
        "one load": {"servers.s1.load.rate_per_s": 9},
        "one of two promises": {"service_classes.tin.targets.m.ttft_ms": 400},
        "a server no longer needs any": {"servers.s0.load": None},
        "what one keeps": {"servers.s2.current": [{"accelerator": "B"}], "servers.s2.keep_accelerator": True},
        "all prices": {"accelerators.*.cost_per_hour *=": 2},
        "a profile": {"profiles.m.A.alpha_ms": 40},
        "the law": {"options.law": "continuous-batching"},
    }

    def problem(self) -> Problem:
        data = problem_data()
        server = data["servers"][0]
        servers = [{**server, "name": f"s{i}", "service_class": c} for i, c in enumerate(("gold", "tin", "gold"))]
        tin = {"name": "tin", "priority": 2, "targets": {"m": {"ttft_ms": 900.0, "itl_ms": 12.0}}}
        return make_problem(servers=servers, service_classes=[*data["service_classes"], tin])

    @pytest.mark.parametrize("name", CHANGES)
    def test_the_same_table(self, name: str) -> None:
        known = find_candidates(self.problem())
        changed = with_settings(self.problem(), self.CHANGES[name])
        again, anew = find_candidates(changed, known=known), find_candidates(changed)
        for table in ("rows", "rejected"):
            for field in fields(getattr(anew, table)):
                values = (getattr(getattr(found, table), field.name) for found in (again, anew))
                np.testing.assert_array_equal(*values)
        np.testing.assert_array_equal(again.needs, anew.needs)

    @pytest.mark.parametrize(
        ("name", "analysed"),
        [("nothing", 0), ("devices and limits", 0), ("one load", 3), ("one of two promises", 3), ("all prices", 9)],
    )
    def test_what_is_analysed(self, monkeypatch: pytest.MonkeyPatch, name: str, analysed: int) -> None:
        known = find_candidates(self.problem())
        counts: list[int] = []
        size = candidates.size
        monkeypatch.setattr(
            candidates, "size", lambda law, **engine: counts.append(len(engine["tps"])) or size(law, **engine)
        )
        find_candidates(with_settings(self.problem(), self.CHANGES[name]), known=known)
        assert sum(counts) == analysed
