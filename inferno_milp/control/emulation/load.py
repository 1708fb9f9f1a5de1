"""A load over a day: a daily curve, a burst, and requests drawn from both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inferno_milp.control.emulation.engine import Request
from inferno_milp.problem.loads import Load
from inferno_milp.simulation.workload import draw_lengths
from inferno_milp.studies.requests import draw_mix

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Day:
    """How a load goes up and down.

    Attributes
    ----------
    hours : that are emulated.
    whole_hours : of the whole day; None: what is emulated is a whole day, however short.
    begin_hour : when what is emulated begins, hours from the day's start.
    trough : load at its least, as a share of the peak's; the peak is the load that the problem gives.
    peak_at : when the peak is, as a share of the day.
    burst : factor of the load during the burst.
    burst_at, burst_length : when it is, and how long, as shares of the day.
    """

    hours: float = 24.0
    whole_hours: float | None = None
    begin_hour: float = 0.0
    trough: float = 0.2
    peak_at: float = 0.6
    burst: float = 3.0
    burst_at: float = 0.3
    burst_length: float = 0.02

    @property
    def length_s(self) -> float:
        """Length of what is emulated, s."""
        return self.hours * 3600

    @property
    def whole_s(self) -> float:
        """Length of the whole day, s."""
        return 3600 * (self.hours if self.whole_hours is None else self.whole_hours)

    def factor(self, time_s: float) -> float:
        """Return the load at a time from the beginning, as a multiple of what the problem gives."""
        return self._factor_at(((self.begin_hour * 3600 + time_s) / self.whole_s) % 1.0)

    def _factor_at(self, share: float) -> float:
        wave = (1 + math.cos(2 * math.pi * (share - self.peak_at))) / 2
        level = self.trough + (1 - self.trough) * wave
        return level * (self.burst if 0 <= share - self.burst_at < self.burst_length else 1.0)

    @property
    def peak(self) -> float:
        """Highest factor of the whole day, to a thousandth of it."""
        return max(self._factor_at(i / 1000) for i in range(1000))


def draw_requests(rng: np.random.Generator, load: Load, day: Day, start_s: float, end_s: float) -> Iterator[Request]:
    """Draw the requests of an interval, within which the rate is that of its middle; times in ms from the day's start.

    Arrivals are Poisson's; lengths vary as the load says.
    """
    length = end_s - start_s
    rate = load.arrival_rate_per_s * day.factor((start_s + end_s) / 2)
    count = int(rng.poisson(rate * length))
    times = np.sort(rng.uniform(start_s * 1000, end_s * 1000, count)).tolist()
    if load.mix:
        inputs, outputs = draw_mix(rng, load.mix, count)
    else:
        least = 1 if load.input_tokens >= 1 else 0
        inputs = draw_lengths(rng, load.input_tokens, count, cv2=load.cv2_input, least=least)
        outputs = draw_lengths(rng, load.output_tokens, count, cv2=load.cv2_output, least=1)
    for at, n_in, n_out in zip(times, inputs.tolist(), outputs.tolist(), strict=True):
        yield Request(at, n_in, n_out)
