"""How well the runs determine the terms, and which two further runs would determine them best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from inferno_milp.profiles.fitting.estimate import Estimate
from inferno_milp.profiles.fitting.prediction import predict
from inferno_milp.profiles.fitting.runs import Runs, make_runs
from inferno_milp.profiles.fitting.terms import ALWAYS, FloatArray, positions
from inferno_milp.profiles.measurements import Measurement

CONFIDENCE = 0.95
DETERMINED = 0.5
"""A term is identified if the runs alone tell its logarithm within this standard deviation (an optional one: within
this share of its typical value)."""
LEAST_INFORMATION = 1e-6
"""Where nothing at all is known of a term, this much is."""
PROMPTS, OUTPUTS, CLIENTS = (128, 512, 2048, 8192), (32, 256, 1024), (1, 4, 16, 64, 128)
"""Runs that are considered."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """How well terms are determined.

    Attributes
    ----------
    low, high : by term, the ends of its 95 % interval, with what is known beforehand.
    not_identified : terms that the runs alone hardly determine.
    condition : condition number of the scaled problem; infinite where the runs leave a direction open.
    """

    low: dict[str, float]
    high: dict[str, float]
    not_identified: tuple[str, ...]
    condition: float


def find_certainty(found: Estimate) -> Certainty:
    """Take the intervals from the curvature at the estimate, as for normal errors."""
    terms, jacobian = found.setting.terms, found.jacobian
    information = jacobian.T @ jacobian
    deviation = np.sqrt(np.diag(_inverse(information + np.diag(found.prior_information))))
    alone = np.sqrt(np.diag(_inverse(information)))
    values = found.parameters[positions(terms)]
    reach = norm.ppf(0.5 + CONFIDENCE / 2) * deviation
    low, high = {}, {}
    for i, name in enumerate(terms):
        if name in ALWAYS:
            low[name], high[name] = values[i] * np.exp(-min(reach[i], 50)), values[i] * np.exp(min(reach[i], 50))
        else:
            low[name] = max(values[i] - reach[i] * found.scale[i], 0.0)
            high[name] = values[i] + reach[i] * found.scale[i]
    lengths = np.linalg.norm(jacobian, axis=0)
    scaled = jacobian / np.maximum(lengths, 1e-300)
    singular = np.linalg.svd(scaled, compute_uv=False)
    few = len(jacobian) < len(terms) or lengths.min() <= 0
    condition = np.inf if few or singular[-1] <= 0 else float(singular[0] / singular[-1])
    limits = np.array([DETERMINED if name in ALWAYS else max(DETERMINED, 0.5 * v / s)
                       for name, v, s in zip(terms, values, found.scale, strict=True)])  # fmt: skip
    weak = tuple(name for name, spread, limit in zip(terms, alone, limits, strict=True) if not spread <= limit)
    return Certainty({k: float(v) for k, v in low.items()}, {k: float(v) for k, v in high.items()}, weak, condition)


def _inverse(information: FloatArray) -> FloatArray:
    """Invert a matrix of information; directions of which nothing is known have a very large variance."""
    values, vectors = np.linalg.eigh(information)
    return np.asarray((vectors / np.maximum(values, 1e-12)) @ vectors.T)


def advise(found: Estimate, terms: Sequence[str]) -> tuple[str, str]:
    """Name the two runs, by shape and clients, that would determine the given terms best beside those there are.

    Returns
    -------
    tuple
        Two runs in words.
    """
    runs = _candidates()
    jacobian = _of_candidates(found, runs)  # (figures, runs, terms)
    there = found.jacobian.T @ found.jacobian + np.diag(found.prior_information)
    each = np.einsum("fri,frj->rij", jacobian, jacobian)
    which = [found.setting.terms.index(name) for name in terms if name in found.setting.terms]
    pairs = list(itertools.combinations(range(len(each)), 2))
    information = np.array([there + each[a] + each[b] for a, b in pairs])
    information += LEAST_INFORMATION * np.eye(information.shape[1])
    variances = np.diagonal(np.linalg.inv(information), axis1=1, axis2=2)[:, which].sum(axis=1)
    best = pairs[int(np.argmin(variances))]
    first, second = (_words(runs.measurements[i]) for i in best)
    return first, second


def _candidates() -> Runs:
    return make_runs(
        [
            Measurement(
                place="",
                tool="",
                sent="concurrency",
                concurrency=clients,
                input_tokens=inputs,
                output_tokens=outputs,
                ttft_ms={"mean": 1.0},
                itl_ms={"mean": 1.0},
            )
            for inputs, outputs, clients in itertools.product(PROMPTS, OUTPUTS, CLIENTS)
        ]
    )


def _of_candidates(found: Estimate, runs: Runs) -> FloatArray:
    where = positions(found.setting.terms)
    steps = np.zeros((len(where), found.parameters.size))
    steps[np.arange(len(where)), where] = 1e-4 * found.scale
    ttft_ms, itl_ms = predict(
        np.vstack([found.parameters, found.parameters + steps]),
        runs,
        found.setting.token_budget,
        found.setting.max_batch,
    )
    figures = [(np.log(ttft_ms), found.ttft_noise), (np.log(itl_ms), found.itl_noise)]
    return np.array([((values[1:] - values[0]) / 1e-4 / noise).T for values, noise in figures])


def _words(m: Measurement) -> str:
    clients = "one request at a time" if m.concurrency == 1 else f"{m.concurrency:g} clients"
    return f"{clients}, {m.input_tokens:g} prompt and {m.output_tokens:g} output tokens"
