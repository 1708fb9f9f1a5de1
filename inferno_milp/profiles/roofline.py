"""Estimates of profiles where nothing was measured: a roofline of the model's figures on the accelerator's.

An iteration reads the weights once (α), and does 2 operations per parameter and token (β, δ); a sequence's context is
read from the KV cache (κ). `Efficiency` says how much of the peaks real engines reach; it is fitted to the measured
catalogue, pair by pair (`python -m benchmarks.catalogue`), and tells how far off it is on pairs left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from inferno_milp.errors import OptionError
from inferno_milp.problem.architecture import KV_BYTES, LanguageModel
from inferno_milp.problem.fields import LARGEST_COUNT
from inferno_milp.problem.sections import Origin, Profile
from inferno_milp.problem.supply import Accelerator

MEMORY_USED = 0.9
"""Share of the memory that an engine takes (vLLM's `--gpu-memory-utilization`)."""
WORKSPACE_GB = 2.0
"""Memory of each device that neither weights nor KV cache can have: activations, graphs, the runtime."""
GB = 1e9
MAX_BATCH = 256
"""Sequences that run at once, by default (vLLM's `--max-num-seqs` on most devices)."""
EXPERTS_TOUCHED_AT = 32
"""Batch over which the experts that are not touched by one token are taken to be touched, evenly."""
FALLBACK = {"fp8": ("bf16", "fp16"), "fp4": ("fp8", "bf16", "fp16"), "int4": ("bf16", "fp16"), "int8": ("bf16", "fp16"),
            "bf16": ("fp16",), "fp16": ("bf16",), "fp32": ("bf16", "fp16")}  # fmt: skip
"""Arithmetic that weights of a precision are computed in where the device has none of that precision."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How much of the peaks engines reach.

    Attributes
    ----------
    weights, context : of the memory bandwidth, reading the weights and the KV cache.
    prompts : of the arithmetic, on prompts.
    layer_us : time that a layer takes besides, on one device, µs; `link_us` more where several devices share it, and
        `experts_us` more where it has experts.
    sequence_us : time that a decoding sequence takes besides (sampling, scheduling), µs.
    overhead_ms, lag_iterations : as in a profile.
    ttft_error, itl_error : relative error of mean latencies: the mean over the runs of a pair, and of these the median
        over measured pairs of models that were left out.
    """

    weights: float = 0.58
    context: float = 0.95
    prompts: float = 0.224
    layer_us: float = 0.66
    link_us: float = 62.3
    experts_us: float = 91.1
    sequence_us: float = 12.6
    overhead_ms: float = 15.0
    lag_iterations: float = 2.0
    ttft_error: float = 0.61
    itl_error: float = 0.29


DEFAULT_EFFICIENCY = Efficiency()


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits an arrangement.

    Attributes
    ----------
    weights_gb, memory_gb : what the weights take, and what there is.
    kv_tokens : tokens that the rest holds; 0 or less if the model does not fit.
    """

    weights_gb: float
    memory_gb: float
    kv_tokens: int


def memory_fit(
    model: LanguageModel, accelerator: Accelerator, precision: str | None = None, kv_bytes: float = KV_BYTES
) -> Fit:
    """Return whether a model's weights fit, and what is left for the KV cache.

    Raises
    ------
    OptionError
        If the accelerator's memory is not known.
    """
    if accelerator.memory_gb is None:
        raise OptionError(f"the memory of {accelerator.name} is not known: give its memory_gb")
    weights_gb = model.weight_bytes(precision or model.precision) / GB
    usable = MEMORY_USED * accelerator.memory_gb - WORKSPACE_GB * accelerator.devices
    return Fit(weights_gb, accelerator.memory_gb, int((usable - weights_gb) * GB / model.kv_bytes_per_token(kv_bytes)))


def devices_needed(model: LanguageModel, accelerator: Accelerator, precision: str | None = None) -> int:
    """Return how many devices like those of an arrangement hold a model, in powers of two, as tensors are split.

    Raises
    ------
    OptionError
        If the accelerator's memory is not known, or is too small for any number.
    """
    fit = memory_fit(model, accelerator, precision)
    usable_gb = MEMORY_USED * fit.memory_gb / accelerator.devices - WORKSPACE_GB
    if usable_gb <= 0:
        raise OptionError(f"the memory of {accelerator.type} is too small for any engine")
    return int(2 ** max(math.ceil(math.log2(fit.weights_gb / usable_gb)), 0))


def estimate_profile(
    model: LanguageModel,
    accelerator: Accelerator,
    precision: str | None = None,
    *,
    kv_bytes: float = KV_BYTES,
    efficiency: Efficiency = DEFAULT_EFFICIENCY,
) -> Profile:
    """Estimate the profile of a model on an arrangement.

    Parameters
    ----------
    model, accelerator : their figures; the accelerator's memory, memory bandwidth and arithmetic are needed.
    precision : of the weights; by default as published.
    kv_bytes : bytes of a value in the KV cache.

    Returns
    -------
    Profile
        Marked `estimated`, with the error on measured pairs that were left out.

    Raises
    ------
    OptionError
        If a figure of the accelerator is missing, or the model does not fit it.

    Notes
    -----
    The roofline of Williams, Waterman and Patterson (2009), on each term of an iteration by itself: docs/profiles.md.
    """
    precision = precision or model.precision
    terms = estimate_terms(model, accelerator, precision, kv_bytes=kv_bytes, efficiency=efficiency)
    fit = memory_fit(model, accelerator, precision, kv_bytes)
    if fit.kv_tokens < 1:
        need = f"its weights take {fit.weights_gb:.0f} GB ({precision}) of {fit.memory_gb:.0f}"
        enough = f"{devices_needed(model, accelerator, precision)} {accelerator.type} would hold them"
        raise OptionError(f"{model.name} does not fit {accelerator.name}: {need}; {enough}")
    return Profile(
        model=model.name,
        accelerator=accelerator.name,
        **terms,
        kv_tokens=min(fit.kv_tokens, LARGEST_COUNT),
        max_batch_size=MAX_BATCH,
        origin=Origin(
            kind="estimated",
            source="roofline; errors are those on measured pairs that the estimate did not see",
            precision=precision,
            ttft_error=efficiency.ttft_error,
            itl_error=efficiency.itl_error,
            errors_on="held-out pairs",
        ),
    )


def estimate_terms(
    model: LanguageModel,
    accelerator: Accelerator,
    precision: str,
    *,
    kv_bytes: float = KV_BYTES,
    efficiency: Efficiency = DEFAULT_EFFICIENCY,
) -> dict[str, float]:
    """Estimate the terms of an iteration; OptionError where a figure of the accelerator is missing."""
    bandwidth, arithmetic = _peaks(accelerator, precision)
    bytes_per_ms = bandwidth * GB / 1e3
    read_ms = model.active_bytes(precision) / (bytes_per_ms * efficiency.weights)
    shared = accelerator.devices > 1
    layer_us = efficiency.layer_us + efficiency.link_us * shared + efficiency.experts_us * (model.experts is not None)
    layer_ms = model.layers * layer_us / 1e3
    token_ms = 2 * model.active_parameters_b / arithmetic / efficiency.prompts  # 10⁹ operations over 10⁹ per ms
    more_bytes = model.weight_bytes(precision) - model.active_bytes(precision)
    experts_ms = more_bytes / (bytes_per_ms * efficiency.weights) / EXPERTS_TOUCHED_AT if model.experts else 0.0
    alpha_ms = read_ms + layer_ms
    return {
        "alpha_ms": alpha_ms,
        "beta_ms": token_ms + experts_ms / 4 + efficiency.sequence_us / 1e3,
        "gamma_ms": alpha_ms,
        "delta_ms": token_ms,
        "kappa_ms": model.kv_bytes_per_token(kv_bytes) / (bytes_per_ms * efficiency.context),
        "overhead_ms": efficiency.overhead_ms,
        "lag_iterations": efficiency.lag_iterations,
    }


def _peaks(accelerator: Accelerator, precision: str) -> tuple[float, float]:
    """Return the memory bandwidth, GB/s, and the arithmetic for a precision, 10¹² operations/s."""
    known = accelerator.peak_tflops or {}
    names = (precision, *FALLBACK[precision])
    arithmetic = next((value for name in names if (value := {str(k): v for k, v in known.items()}.get(name))), None)
    missing = [] if accelerator.memory_bandwidth_gb_per_s else ["memory_bandwidth_gb_per_s"]
    missing += [] if arithmetic else [f"peak_tflops for {precision}"]
    if missing or accelerator.memory_bandwidth_gb_per_s is None or arithmetic is None:
        raise OptionError(f"{accelerator.name}: {' and '.join(missing)} must be known for an estimate")
    return accelerator.memory_bandwidth_gb_per_s, arithmetic
