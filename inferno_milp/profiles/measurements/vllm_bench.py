"""`vllm bench serve`: one JSON document per run, several in a list, or one after the other in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from inferno_milp.profiles.measurements.facts import Facts
from inferno_milp.profiles.measurements.records import Measurement
from inferno_milp.profiles.measurements.sending import sent_at

STATISTICS = ("median", "p50", "p90", "p95", "p99")
ALIKE = 0.25
"""The mean time per output token and the mean time between chunks are taken for the same up to this difference."""


def is_run(document: Any) -> bool:
    """Whether a JSON document is a run of `vllm bench serve`."""
    return (
        isinstance(document, dict) and {"mean_ttft_ms", "total_input_tokens", "request_throughput"} <= document.keys()
    )


def read_run(facts: Facts) -> Iterator[Measurement]:
    """Read one run."""
    facts.notes = []
    requests, duration_s = facts.count("completed"), facts.number("duration")
    inputs, outputs = facts.number("total_input_tokens"), facts.number("total_output_tokens")
    served = facts.number("request_throughput")
    errors = facts.count("failed", needed=False)
    if errors is None and requests is not None and facts.at("num_prompts").data is not None:
        sent = facts.count("num_prompts")
        errors = None if sent is None else max(sent - requests, 0)
    if requests == 0:
        facts.fault("no request was completed")
    if None in (requests, duration_s, inputs, outputs, served) or not requests:
        return
    assert inputs is not None
    assert outputs is not None
    assert served is not None
    replicas = _replicas(facts)
    if replicas > 1:
        facts.notes.append(f"{replicas} replicas behind one address: rates are those of one")
    if not _is_one_load(facts):
        return
    ttft_ms, itl_ms = _statistics(facts, "ttft"), _between_tokens(facts)
    whole_ms = _statistics(facts, "e2el", needed=False)
    parts_ms = ttft_ms.get("mean", 0.0) + max(outputs / requests - 1, 0.0) * itl_ms.get("mean", 0.0)
    labels = {
        "model": facts.text("model_id"), "accelerator": _accelerator(facts), "devices": _devices(facts, replicas),
        "backend": facts.text("backend"), "tensor_parallel_size": facts.text("tensor_parallel_size"),
        "quantization": facts.text("quantization"),
    }  # fmt: skip
    yield Measurement(
        place=facts.place,
        tool="vllm bench serve",
        labels={name: value for name, value in labels.items() if value},
        **_sent(facts, replicas, served, whole_ms.get("mean", parts_ms) / 1e3),
        input_tokens=inputs / requests,
        output_tokens=outputs / requests,
        requests=requests,
        errors=errors,
        duration_s=duration_s,
        throughput_per_s=served / replicas,
        ttft_ms=ttft_ms,
        itl_ms=itl_ms,
        end_to_end_ms=whole_ms,
        notes=tuple(facts.notes),
    )


def _is_one_load(facts: Facts) -> bool:
    """Whether all requests were sent under one load; a ramp is left out, with the reason."""
    ramp = facts.text("ramp_up_strategy")
    if ramp is None:
        return True
    first, last = facts.at("ramp_up_start_rps").data, facts.at("ramp_up_end_rps").data
    problem = f"a ramp ({ramp}) from {first} to {last} requests/s: its figures mix the rates between"
    facts.leave_out(problem, "run each rate by itself")
    return False


def _sent(facts: Facts, replicas: int, served: float, request_s: float) -> dict[str, Any]:
    clients = facts.number("max_concurrency", needed=False)
    rate = facts.at("request_rate").data
    if rate in ("inf", "Infinity", float("inf")):
        crowd = clients is None
        if crowd:
            clients = facts.number("num_prompts")
            facts.notes.append("all requests were sent at once: taken as that many clients, each with one request")
        return {"sent": "concurrency", "concurrency": None if clients is None else clients / replicas, "crowd": crowd}
    given = facts.number("request_rate")
    shape = facts.number("burstiness", needed=False)  # of the gamma law of the times between arrivals
    if given is not None and served > 1.2 * given:
        facts.fault(f"{served:.4g} requests/s were served of {given:.4g}/s sent", "one of the two is wrong")
    return sent_at(
        facts,
        None if given is None else given / replicas,
        None if clients is None else clients / replicas,
        running=served / replicas * request_s,
        cv2_arrival=1 / shape if shape else 1.0,
    )


def _statistics(facts: Facts, name: str, *, needed: bool = True) -> dict[str, float]:
    found = {"mean": facts.number(f"mean_{name}_ms", needed=needed)}
    for statistic in STATISTICS:
        found["p50" if statistic == "median" else statistic] = facts.number(f"{statistic}_{name}_ms", needed=False)
    return {statistic: value for statistic, value in found.items() if value is not None}


def _between_tokens(facts: Facts) -> dict[str, float]:
    """Return the times between tokens: those between chunks, unless chunks hold several tokens."""
    chunks, tokens = _statistics(facts, "itl", needed=False), _statistics(facts, "tpot")
    if not ("mean" in chunks and "mean" in tokens):
        return chunks or tokens
    if abs(chunks["mean"] / max(tokens["mean"], 1e-12) - 1) <= ALIKE:
        return chunks or tokens
    times = f"{chunks['mean']:.3g} ms between chunks, {tokens['mean']:.3g} ms per token"
    facts.notes.append(f"{times}: chunks are no tokens here, the latter is taken")
    return tokens


def _accelerator(facts: Facts) -> str | None:
    named = facts.text("gpu_name") or (facts.text("gpu") or "").partition("x")[2] or facts.text("gpu")
    return re.sub(r"^NVIDIA[-_ ]", "", named) if named else None


def _devices(facts: Facts, replicas: int) -> str | None:
    count = facts.text("gpu_count") or (facts.text("gpu") or "").partition("x")[0]
    return str(max(int(count) // replicas, 1)) if count.isdecimal() else None


def _replicas(facts: Facts) -> int:
    """Return the engines behind the address, as deployments note them beside the run."""
    named = [facts.text("decode_replicas"), facts.text("replicas")]
    return max([int(word) for word in named if word and word.isdecimal()], default=1) or 1
