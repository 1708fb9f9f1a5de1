"""What lies between the phases: a KV cache on its way from the engine of the prompt to that of the output.

Every sender sends one cache at a time, every receiver takes one at a time; a cache goes as fast as the slower of the
two. Waits are those of a queue at either end (Pollaczek and Khinchine, for bursts Kingman).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from inferno_milp.errors import OptionError
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Profile
from inferno_milp.problem.supply import Accelerator
from inferno_milp.profiles.catalogue import make_catalogue, shipped_catalogue
from inferno_milp.queueing.percentiles import read_percent

FloatArray = npt.NDArray[np.float64]

BYTES_PER_GB_PER_MS = 1e6
"""Bytes that a gigabyte per second comes to in a millisecond."""


End = tuple[Profile, Accelerator]
"""An engine, and what it runs on."""


@dataclass(frozen=True, slots=True)
class Link:
    """A way for KV caches, and what goes over it.

    Attributes
    ----------
    bytes_per_token : of a KV cache.
    sender_gb_per_s, receiver_gb_per_s : speed of either end, of one replica.
    overhead_ms : what every transfer takes besides.
    input_tokens, cv2_input : mean prompt and its squared coefficient of variation.
    cv2_arrival : of the times between arrivals at a replica; regular ones count as Poisson.
    """

    bytes_per_token: float
    sender_gb_per_s: float
    receiver_gb_per_s: float
    overhead_ms: float
    input_tokens: float
    cv2_input: float
    cv2_arrival: float = 1.0

    @property
    def sending_ms(self) -> float:
        """How long a mean cache keeps a sender busy that has the way to itself."""
        return self.bytes_per_token * self.input_tokens / (self.sender_gb_per_s * BYTES_PER_GB_PER_MS)

    @property
    def receiving_ms(self) -> float:
        """The same of a receiver."""
        return self.bytes_per_token * self.input_tokens / (self.receiver_gb_per_s * BYTES_PER_GB_PER_MS)

    def utilizations(
        self, sender_rate_per_s: npt.ArrayLike, receiver_rate_per_s: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        """Return which part of the time each sender and each receiver is busy, given the rates of one of each."""
        senders, receivers = np.asarray(sender_rate_per_s, dtype=float), np.asarray(receiver_rate_per_s, dtype=float)
        return senders / 1000 * self.sending_ms, receivers / 1000 * self.receiving_ms

    def transfer_ms(
        self, statistic: str, sender_rate_per_s: npt.ArrayLike, receiver_rate_per_s: npt.ArrayLike
    ) -> FloatArray:
        """Return what a transfer takes, waits included: its mean or a percentile; infinite where an end is overrun.

        Percentiles add up those of the prompt's length, taken as lognormal, and of both waits, whose tails are taken as
        exponential: from the 80th on that is too long a time rather than too short.
        """
        busy = self.utilizations(sender_rate_per_s, receiver_rate_per_s)
        percent = read_percent(statistic)
        own_ms = max(self.sending_ms, self.receiving_ms) * self._longer(percent)
        result = np.asarray(self.overhead_ms + own_ms, dtype=float)
        for used, service_ms in zip(busy, (self.sending_ms, self.receiving_ms), strict=True):
            result = result + self._wait_ms(used, service_ms, percent)
        return result

    def _longer(self, percent: float | None) -> float:
        if percent is None or self.cv2_input == 0:
            return 1.0
        scale = math.sqrt(math.log1p(self.cv2_input))
        return math.exp(float(ndtri(percent / 100)) * scale - scale**2 / 2)

    def _wait_ms(self, used: FloatArray, service_ms: float, percent: float | None) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            if_any_ms = service_ms * (max(self.cv2_arrival, 1.0) + self.cv2_input) / (2 * (1 - used))
            wait = used * if_any_ms
            if percent is not None:
                wait = if_any_ms * np.maximum(np.log(used / (1 - percent / 100)), 0.0)
        return np.asarray(np.where(used < 1, np.where(used > 0, wait, 0.0), np.inf))


def find_link(load: Load, overhead_ms: float, sender: End, receiver: End) -> Link | None:
    """Find the way between two engines; None if there is none: an end without a network, or in another place."""
    (first, here), (second, there) = sender, receiver
    speeds, size = (here.network_gb_per_s, there.network_gb_per_s), first.kv_bytes_per_token
    if speeds[0] is None or speeds[1] is None or size is None or here.region != there.region:
        return None
    return Link(
        bytes_per_token=size,
        sender_gb_per_s=speeds[0] * first.accelerators_per_replica,
        receiver_gb_per_s=speeds[1] * second.accelerators_per_replica,
        overhead_ms=overhead_ms,
        input_tokens=load.input_tokens,
        cv2_input=load.cv2_input,
        cv2_arrival=load.cv2_arrival,
    )


def with_network(problem: Problem, network_gb_per_s: float | None, kv_bytes_per_token: float | None) -> Problem:
    """Return the problem with figures where it has none: of each device's network, and of each model's KV cache.

    Models whose architecture is known have theirs from that; `kv_bytes_per_token` is for the others.

    Raises
    ------
    OptionError
        If a figure is not above 0.
    """
    given = {"network_gb_per_s": network_gb_per_s, "kv_bytes_per_token": kv_bytes_per_token}
    wrong = [f"{name} must be above 0, not {value}" for name, value in given.items() if not _is_positive(value)]
    if wrong:
        raise OptionError("; ".join(wrong))
    accelerators = problem.accelerators
    if network_gb_per_s is not None:
        accelerators = tuple(
            a if a.network_gb_per_s else a.model_copy(update={"network_gb_per_s": network_gb_per_s * a.devices})
            for a in accelerators
        )
    known = _known_kv_bytes(problem)
    profiles = tuple(
        p
        if p.kv_bytes_per_token
        else p.model_copy(update={"kv_bytes_per_token": known.get(p.model, kv_bytes_per_token)})
        for p in problem.profiles
    )
    return problem.model_copy(update={"accelerators": accelerators, "profiles": profiles})


def _known_kv_bytes(problem: Problem) -> dict[str, float]:
    """Return the bytes of a token in the KV cache, by model, of those whose architecture is known."""
    found = {}
    catalogues = make_catalogue([problem]), shipped_catalogue()
    for model in {server.model for server in problem.servers}:
        for catalogue in catalogues:
            try:
                found[model] = catalogue.language_model(model).kv_bytes_per_token()
                break
            except OptionError:
                continue
    return found


def _is_positive(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and value > 0)
