"""Random small systems of every kind, for Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from conftest import problem_data
from inferno_milp.problem import Problem

POWER = {"idle_w": 50.0, "mid_w": 150.0, "mid_utilization": 0.4, "full_w": 200.0}


@st.composite
def systems(draw: st.DrawFn, *, servers: int = 3, mixed: bool | None = None, rate: float = 25.0) -> Problem:
    """A problem with up to so many servers on the three accelerators of the tiny problem, any option set or not."""
    data = problem_data()
    for accelerator in data["accelerators"]:
        accelerator["power"] = {name: value * accelerator.get("devices", 1) if name.endswith("_w") else value
                                for name, value in POWER.items()}  # fmt: skip
    data["profiles"][0]["accelerators_per_replica"] = draw(st.sampled_from([1, 1, 2, 3]))
    data["service_classes"] = [
        {"name": "gold", "priority": 1, "targets": {"m": {"ttft_ms": 1000.0, "itl_ms": 30.0}}},
        {"name": "tin", "priority": 2, "targets": {"m": draw(st.sampled_from([{}, {"tps": 900.0}]))}},
    ]
    data["servers"] = [draw(some_server(i, rate)) for i in range(draw(st.integers(1, servers)))]
    data["capacity"], data["nodes"] = draw(devices())
    data["options"] = {"law": "inferno", **draw(some_options(mixed))}
    return Problem.model_validate(data)


@st.composite
def some_server(draw: st.DrawFn, number: int, rate: float) -> dict[str, Any]:
    """A server with any of its fields set or not."""
    server: dict[str, Any] = {
        "name": f"s{number}",
        "service_class": draw(st.sampled_from(["gold", "tin"])),
        "model": "m",
        "min_replicas": draw(st.sampled_from([0, 0, 1, 3])),
        "reserve": draw(st.sampled_from([0.0, 0.0, 0.2])),
        "survive": draw(st.sampled_from([0, 0, 1, 2])),
        "weight": draw(st.sampled_from([1.0, 1.0, 2.0, 2.5])),
    }
    if draw(st.integers(0, 6)):
        server["load"] = {
            "rate_per_s": draw(st.one_of(st.just(0.0), st.floats(0.5, rate))),
            "input_tokens": 200.0,
            "output_tokens": 100.0,
        }
    if not draw(st.integers(0, 3)):
        server["max_replicas"] = draw(st.integers(max(server["min_replicas"], 1), 6))
    current = draw(st.sampled_from([(), ("A",), ("B",), ("A", "2xB")]))
    server["current"] = [{"accelerator": name, "replicas": draw(st.integers(0, 4))} for name in current]
    server["keep_accelerator"] = bool(current) and not draw(st.integers(0, 3))
    return server


@st.composite
def devices(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    """Capacity and nodes."""
    if not draw(st.integers(0, 4)):
        return "unlimited", []
    capacity, nodes = {"A": draw(st.integers(0, 14)), "B": draw(st.integers(0, 8))}, []
    for kind in ("A", "B"):
        if not draw(st.integers(0, 2)):
            del capacity[kind]
            for size in draw(st.lists(st.integers(1, 5), min_size=1, max_size=2, unique=True)):
                nodes.append({"type": kind, "devices": size, "count": draw(st.integers(0, 4))})  # noqa: PERF401
    return capacity, nodes


@st.composite
def some_options(draw: st.DrawFn, mixed: bool | None) -> dict[str, Any]:
    """Options, each set or not."""
    options: dict[str, Any] = {"assignment": "mixed" if (draw(st.booleans()) if mixed is None else mixed) else "single"}
    options["batch_sizes"] = draw(st.sampled_from(["largest", "every"]))
    options["change_penalty"] = draw(st.sampled_from([0.1, 0.0, 1.0]))
    options["saturation_policy"] = draw(
        st.sampled_from(["none", "priority_exhaustive", "priority_round_robin", "round_robin"])
    )
    if not draw(st.integers(0, 2)):
        options["max_changes"] = draw(st.integers(0, 2))
    if not draw(st.integers(0, 3)):
        options["max_cost_per_hour"] = draw(st.sampled_from([20.0, 60.0, 150.0]))
    if not draw(st.integers(0, 3)):
        options["max_power_w"] = draw(st.sampled_from([100.0, 500.0, 1500.0]))
    if not draw(st.integers(0, 3)):
        options |= {"carbon_kg_per_kwh": 0.4, "carbon_price_per_kg": draw(st.sampled_from([0.0, 30.0]))}
        if draw(st.booleans()):
            options["max_carbon_kg_per_hour"] = draw(st.sampled_from([0.1, 0.4]))
    if not draw(st.integers(0, 3)):
        options["energy_price_per_kwh"] = 20.0
    return options
