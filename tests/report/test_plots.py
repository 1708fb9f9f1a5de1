"""Figures: each shows what it should, on given axes or on its own, and is the same file each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from small_problems import make_problem, problem_data

import inferno_milp as im
from inferno_milp import queueing
from inferno_milp.plan import Plan
from inferno_milp.problem.fields import Targets
from inferno_milp.report import plots
from inferno_milp.studies.explain import explain
from inferno_milp.studies.prices import find_prices
from inferno_milp.studies.simulate import simulate_plan
from inferno_milp.studies.sweeps import find_frontier, sweep


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    mpl.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return im.optimize(im.read_problem(Path(__file__).parent.parent.parent / "instances" / "limited.yaml"))


def words(ax: Axes) -> str:
    return " ".join(text.get_text() for text in ax.texts)


def heights(ax: Axes) -> list[float]:
    return [patch.get_height() for patch in ax.patches]  # type: ignore[attr-defined]


def test_axes_of_its_own_and_given_ones(plan: Plan) -> None:
    _, ax = plots.new_figure()
    assert plots.plot_capacity(plan, ax=ax) is ax
    own = plots.plot_capacity(plan)
    assert own is not ax
    assert own.figure is not ax.figure


def test_the_same_bytes(plan: Plan) -> None:
    def draw() -> bytes:
        figure, ax = plots.new_figure()
        plots.plot_servers(plan, ax=ax)
        return plots.figure_bytes(figure, "svg")

    first = draw()
    assert first == draw()
    assert first.startswith(b"<?xml")
    assert b"<dc:date>" not in first


class TestPlans:
    def test_assignment(self, plan: Plan) -> None:
        ax = plots.plot_assignment(plan)
        assert len(ax.texts) == 27
        assert "11 × 2xMI300X" in words(ax)

    def test_somebody_not_served(self, instances: Path) -> None:
        ax = plots.plot_assignment(im.optimize(im.read_problem(instances / "infeasible.yaml")))
        assert words(ax) == "1 × A100\n(targets missed) not served"

    @pytest.mark.parametrize(
        "quantity", ["cost_per_hour", "replicas", "batch_size", "itl_ms", "ttft_ms", "ttft_p95_ms", "wait_ms"]
    )
    def test_servers(self, plan: Plan, quantity: str) -> None:
        ax = plots.plot_servers(plan, quantity)  # type: ignore[arg-type]
        assert len(ax.patches) == 27
        total = sum(heights(ax))
        if quantity == "cost_per_hour":
            assert total == pytest.approx(26300.5)
        else:
            assert total == pytest.approx(sum(getattr(s.allocations[0], quantity) for s in plan.servers))

    def test_two_servers_of_one_class_and_model(self, instances: Path) -> None:
        plan = im.optimize(im.read_problem(instances / "small.yaml"))
        assert sum(heights(plots.plot_servers(plan))) == pytest.approx(plan.total_cost_per_hour)

    def test_names_are_no_formulas(self) -> None:
        data = problem_data(currency="$^")
        data["service_classes"][0]["name"] = data["servers"][0]["service_class"] = "a$^$b"
        plan = im.optimize(im.Problem.model_validate(data))
        for draw in (plots.plot_assignment, plots.plot_servers, plots.plot_types, plots.plot_targets):
            figure, ax = plots.new_figure()
            draw(plan, ax=ax)  # type: ignore[operator]
            assert plots.figure_bytes(figure, "png")

    def test_capacity(self, plan: Plan) -> None:
        assert "144 of 144" in words(plots.plot_capacity(plan))
        free = im.optimize(make_problem(capacity="unlimited"))
        assert "of" not in words(plots.plot_capacity(free))

    def test_types(self, plan: Plan) -> None:
        assert sum(heights(plots.plot_types(plan))) == pytest.approx(sum(use.used for use in plan.capacity))
        assert sum(heights(plots.plot_types(plan, "cost_per_hour"))) == pytest.approx(26300.5)

    def test_targets(self, plan: Plan) -> None:
        ax = plots.plot_targets(plan)
        parts = np.concatenate([np.asarray(dots.get_offsets())[:, 0] for dots in ax.collections])
        assert len(parts) == 54
        assert parts.max() <= 1 + 1e-9

    def test_batch_sizes(self, instances: Path) -> None:
        plan = im.optimize(im.read_problem(instances / "small.yaml"))
        ax = plots.plot_batch_sizes(plan, "batch-chat-8b")
        assert ax.lines[1].get_xdata()[0] == plan.servers[4].allocations[0].batch_size  # type: ignore[index]
        with pytest.raises(ValueError, match="standby has no allocation with a load"):
            plots.plot_batch_sizes(plan, "standby")


def test_changes(plan: Plan, instances: Path) -> None:
    after = im.optimize(im.read_problem(instances / "limited-load-change.yaml"))
    total = after.total_cost_per_hour or 0.0
    ax = plots.plot_cost_difference(plan, after)
    assert sum(heights(ax)) == pytest.approx(total - 26300.5)
    assert ax.get_title() == "in all −6,604.5 cents/h"
    assert len(plots.plot_replica_scaling(plan, after).patches) == 54
    moved = words(plots.plot_accelerator_changes(plan, after)).count("→")
    assert moved == sum(change.moves for change in after.changes)


def test_analysis() -> None:
    engine = {"alpha_ms": 10, "beta_ms": 0.1, "gamma_ms": 10, "delta_ms": 0.1, "input_tokens": 100, "output_tokens": 50}
    found = queueing.analyze(**engine, max_batch=8, rate_per_s=[2.0, 1.0, 3.0])  # type: ignore[arg-type]
    ax = plots.plot_analysis(found, targets=Targets(ttft_ms={"mean": 100.0, "p95": 300.0}), max_rate_per_s=2.5)
    assert [line.get_label() for line in ax.lines] == [
        "mean", "95th percentile", "target, mean", "target, p95", "highest rate"
    ]  # fmt: skip
    assert list(ax.lines[0].get_xdata()) == [1.0, 2.0, 3.0]
    assert len(plots.plot_analysis(found, "itl_ms").lines) == 2


def test_simulation(instances: Path) -> None:
    problem = im.read_problem(instances / "small.yaml")
    found = simulate_plan(problem, im.optimize(problem), requests=1000)
    assert len(plots.plot_simulation(found).containers) == 1


class TestStudies:
    def test_cost_parts(self, instances: Path) -> None:
        ax = plots.plot_cost_parts(explain(im.read_problem(instances / "limited.yaml")))
        assert sum(heights(ax)) == pytest.approx(2 * 26300.5)
        assert "8,095.5" in words(ax)

    def test_prices(self, instances: Path) -> None:
        prices = find_prices(im.read_problem(instances / "small.yaml"))
        assert "no type is scarce" in words(plots.plot_device_prices(prices))
        ax = plots.plot_target_prices(prices)
        assert [label.get_text() for label in ax.get_yticklabels()] == [
            "interactive chat-8b, ITL ≤ 25 ms", "batch chat-8b, 9000 tokens/s"
        ]  # fmt: skip

    def test_sweep(self) -> None:
        frame = sweep(make_problem(), {"servers.*.load.rate_per_s *=": [1, 2, 9], "capacity.A": [4, 20]})
        ax = plots.plot_sweep(frame, "servers.*.load.rate_per_s *=")
        assert "capacity.A 4" in ax.get_legend().get_texts()[0].get_text()  # type: ignore[union-attr]
        values = {"options.max_cost_per_hour": [None, 90], "capacity": [{"A": 20}, "unlimited"]}
        ax = plots.plot_sweep(sweep(make_problem(), values), "capacity")
        assert len(ax.get_legend().get_texts()) == 2  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="no column x"):
            plots.plot_sweep(frame, "x")

    def test_frontier(self, instances: Path) -> None:
        frame = find_frontier(im.read_problem(instances / "limited.yaml"), "load", values=[0.5, 1.0, 4.0])
        ax = plots.plot_frontier(frame, "load", currency="cents")
        assert list(ax.lines[0].get_xdata()) == [0.5, 1.0]
        assert list(ax.lines[1].get_xdata()) == [4.0]


def test_names_of_models_do_not_overlap(instances: Path) -> None:
    """Names longer than their column stand slanted; short ones in their places as they are."""
    plan = im.optimize(im.read_problem(instances / "real-cloud.yaml"))
    ax = plots.plot_assignment(plan)
    assert ax.figure is not None
    ax.figure.draw_without_rendering()
    labels = ax.get_xticklabels()
    assert any(len(label.get_text()) > 15 for label in labels)
    corners = [label.get_window_extent().get_points()[1] for label in labels]  # where slanted text ends, at its tick
    assert all(label.get_rotation() == 35 for label in labels)
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
