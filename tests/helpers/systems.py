"""Random small systems of every kind, for Hypothesis: everything that a problem document can say of one moment."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from small_problems import problem_data

from inferno_milp.problem import Problem
from inferno_milp.problem.pools import with_pools

POWER = {"idle_w": 50.0, "mid_w": 150.0, "mid_utilization": 0.4, "full_w": 200.0}
TARGETS: tuple[dict[str, Any], ...] = (
    {"ttft_ms": 1000.0, "itl_ms": 30.0},
    {"ttft_ms": {"p95": 1500.0}, "itl_ms": {"p95": 45.0}},
    {"ttft_ms": {"mean": 800.0, "p99": 6000.0}, "itl_ms": 24.0},
    {"ttft_ms": 130.0},
    {"itl_ms": 5.5},
)
SCALES = (1.0, 1.0, 1.0, 1e-9, 1e-6, 1e-3, 1e3, 1e6, 1e9)
"""Factors on all prices, and on all weights: no status may depend on their units."""


@st.composite
def systems(
    draw: st.DrawFn,
    *,
    servers: int = 3,
    mixed: bool | None = None,
    rate: float = 25.0,
    noded: bool = False,
    small: bool = False,
) -> Problem:
    """A problem with up to so many servers on accelerators of two types, with any of its options set or not.

    Parameters
    ----------
    small : whether it has three accelerators and one model, for tests that try everything again and again.
    noded : whether all devices sit in nodes, whose sizes those of the replicas do not divide, with no other limit.
    """
    data = problem_data()
    law = "inferno" if small else draw(st.sampled_from(["inferno", "inferno", "continuous-batching"]))
    scale = draw(st.sampled_from(SCALES))
    draw(machines(data, law, scale, noded=noded, small=small))
    data["service_classes"] = [
        {
            "name": "gold",
            "priority": 1,
            "targets": {"m": draw(st.sampled_from(TARGETS[:1] if small else TARGETS)), "k": {"ttft_ms": 900.0}},
        },
        {"name": "tin", "priority": 2, "targets": {"m": draw(st.sampled_from([{}, {"tps": 900.0}])), "k": {}}},
    ]
    data["capacity"], data["nodes"], data["pools"] = draw(devices(noded=noded, small=small))
    pools = [pool["name"] for pool in data["pools"]]
    data["servers"] = [
        draw(some_server(i, rate, pools, law, small=small)) for i in range(draw(st.integers(1, servers)))
    ]
    unit = draw(st.sampled_from(SCALES))
    for server in data["servers"]:
        server["weight"] *= unit
    data["options"] = {"law": law, **({"assignment": "mixed" if mixed else "single"} if noded
                                      else draw(some_options(mixed, scale)))}  # fmt: skip
    if data["pools"]:  # the accelerators of today are called otherwise there
        for server in data["servers"]:
            for now in server["current"]:
                if now["accelerator"] == "A":
                    now["accelerator"] = "A@own"
    if law != "inferno" and draw(st.booleans()):
        data["latencies_ms"] = {"here": {"there": 40.0, "here": 1.0}}
        for accelerator in data["accelerators"]:
            accelerator["region"] = draw(st.sampled_from(["here", "there"]))
        for pool in data["pools"]:
            pool["region"] = "there"
    return with_pools(Problem.model_validate(data))


@st.composite
def machines(draw: st.DrawFn, data: dict[str, Any], law: str, scale: float, *, noded: bool, small: bool) -> None:
    """Write accelerators and profiles into a problem's data."""
    if not small:
        data["accelerators"].append({"name": "3xB", "type": "B", "devices": 3, "cost_per_hour": 72.0})
        data["profiles"].append({**data["profiles"][2], "accelerator": "3xB", "alpha_ms": 4.0, "max_batch_size": 160})
    data["profiles"].append({**data["profiles"][1], "model": "k", "alpha_ms": 12.0})
    data["profiles"].append({**data["profiles"][0], "model": "k", "accelerator": "2xB", "alpha_ms": 14.0})
    # Sizes of replicas that do not divide one another, in nodes of any size.
    data["profiles"][0]["accelerators_per_replica"] = draw(st.sampled_from([1, 1, 2, 3, 5]))
    data["profiles"][1]["accelerators_per_replica"] = draw(st.sampled_from([5] if noded else [1, 1, 2, 5]))
    spread = draw(st.sampled_from([1.0] * 6 + [2e-8])) if scale >= 1 and not small else 1.0
    for accelerator in data["accelerators"]:
        accelerator["cost_per_hour"] *= scale * draw(st.sampled_from([1.0, spread]))
        accelerator["power"] = {name: value * accelerator.get("devices", 1) if name.endswith("_w") else value
                                for name, value in POWER.items()}  # fmt: skip
        if not draw(st.integers(0, 5)):
            accelerator["availability"] = draw(st.sampled_from([0.8, 0.95]))
    for profile in data["profiles"]:
        profile["max_adapters"] = draw(st.sampled_from([None, None, 1]))
        if law != "inferno":
            profile["token_budget"] = draw(st.sampled_from([8192, 512]))
            profile["kv_tokens"] = draw(st.sampled_from([None, 12_000]))


@st.composite
def some_server(
    draw: st.DrawFn, number: int, rate: float, pools: list[str], law: str, *, small: bool
) -> dict[str, Any]:
    """A server with any of its fields set or not."""
    server: dict[str, Any] = {
        "name": f"s{number}",
        "service_class": draw(st.sampled_from(["gold", "tin"])),
        "model": draw(st.sampled_from(["m", "m", "m", "k"])),
        "min_replicas": draw(st.sampled_from([0, 0, 1, 3])),
        "reserve": draw(st.sampled_from([0.0, 0.0, 0.2])),
        "survive": draw(st.sampled_from([0, 0, 1, 2])),
        "weight": draw(st.sampled_from([1.0, 1.0, 2.0, 2.5])),
        "adapters": draw(st.sampled_from([(), (), ("x",), ("x", "y")])),
        "region": draw(st.sampled_from([None, "here"])),
    }
    if draw(st.integers(0, 6)):
        server["load"] = draw(some_load(rate, law))
    if not draw(st.integers(0, 3)):
        server["max_replicas"] = draw(st.integers(max(server["min_replicas"], 1), 6))
    if not small and not draw(st.integers(0, 5)):
        server["max_batch_size"] = draw(st.sampled_from([8, 64]))
    if not draw(st.integers(0, 5)):
        server["max_queue_size"] = draw(st.sampled_from([1, 30]))
    if pools and not draw(st.integers(0, 3)):
        server["pools"] = draw(st.sampled_from([[], pools[:1], pools]))
    current = draw(st.sampled_from([(), ("A",), ("B",), ("A", "2xB")]))
    server["current"] = [{"accelerator": name, "replicas": draw(st.integers(0, 4))} for name in current]
    kept = [name for name in current if server["model"] == "m" or name != "A"]
    server["keep_accelerator"] = bool(kept) and not draw(st.integers(0, 3))
    return server


@st.composite
def some_load(draw: st.DrawFn, rate: float, law: str) -> dict[str, Any]:
    """A load: plain, varied, or a mix of request sizes."""
    load: dict[str, Any] = {"rate_per_s": draw(st.one_of(st.just(0.0), st.just(1e-7), st.floats(0.5, rate)))}
    if law == "inferno" or draw(st.booleans()):
        return {**load, "input_tokens": 200.0, "output_tokens": draw(st.sampled_from([100.0, 100.0, 1.0]))}
    if draw(st.booleans()):
        small, large = ({"input_tokens": i, "output_tokens": o} for i, o in ((100.0, 60.0), (900.0, 200.0)))
        return {**load, "mix": [{"share": 0.75, **small}, {"share": 0.25, **large}]}
    varied = {"cv2_input": 1.0, "cv2_output": 0.5, "cv2_arrival": draw(st.sampled_from([0.0, 1.0, 2.0]))}
    return {**load, "input_tokens": 400.0, "output_tokens": 80.0, **varied}


@st.composite
def devices(
    draw: st.DrawFn, *, noded: bool = False, small: bool = False
) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """Capacity, nodes and pools."""
    if not noded and not draw(st.integers(0, 4)):
        return "unlimited", [], []
    capacity, nodes = {"A": draw(st.integers(0, 14)), "B": draw(st.integers(0, 8))}, []
    if not noded and not small and not draw(st.integers(0, 4)):
        del capacity["A"]
        prices = st.sampled_from([1.0, 0.4, 1.5])
        pools = [{"name": name, "type": "A", "count": draw(st.integers(0, 6)), "cost_factor": draw(prices)}
                 for name in ("own", "spot")]  # fmt: skip
        pools[1] |= {"interruptions_per_hour": 0.1, "recovery_hours": 0.5}
        return capacity, nodes, pools
    for kind in ("A", "B"):
        if noded or draw(st.booleans()):
            del capacity[kind]
            for size in draw(st.lists(st.integers(1, 8), min_size=1, max_size=2, unique=True)):
                nodes.append({"type": kind, "devices": size, "count": draw(st.integers(0, 4))})  # noqa: PERF401
    return capacity, nodes, []


@st.composite
def some_options(draw: st.DrawFn, mixed: bool | None, scale: float) -> dict[str, Any]:
    """Options, each set or not."""
    options: dict[str, Any] = {"assignment": "mixed" if (draw(st.booleans()) if mixed is None else mixed) else "single"}
    options["batch_sizes"] = draw(st.sampled_from(["largest", "every"]))
    options["batch_choice"] = draw(st.sampled_from(["smallest", "quickest"]))
    options["change_penalty"] = draw(st.sampled_from([0.1, 0.0, 1.0]))
    options["saturation_policy"] = draw(
        st.sampled_from(["none", "priority_exhaustive", "priority_round_robin", "round_robin"])
    )
    if not draw(st.integers(0, 2)):
        options["max_changes"] = draw(st.integers(0, 2))
    if not draw(st.integers(0, 3)):
        options["max_cost_per_hour"] = draw(st.sampled_from([20.0, 60.0, 150.0])) * scale
    if not draw(st.integers(0, 3)):
        options["max_power_w"] = draw(st.sampled_from([115.0, 520.0, 1530.0]))
    if not draw(st.integers(0, 3)):
        options |= {"carbon_kg_per_kwh": 0.4, "carbon_price_per_kg": draw(st.sampled_from([0.0, 30.0 * scale]))}
        if draw(st.booleans()):
            options["max_carbon_kg_per_hour"] = draw(st.sampled_from([0.11, 0.43]))
    if not draw(st.integers(0, 3)):
        options["energy_price_per_kwh"] = 20.0 * scale
    if not draw(st.integers(0, 4)):
        options["max_blocking"] = draw(st.sampled_from([0.001, 0.2]))
    return options
