"""From what servers do to the load that is planned for: their history, and the forecast of it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from inferno_milp.control.collector import Observation
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.forecast import forecast_rate
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Server

LEAST_RATE_PER_S = 1e-6
"""Rates below this are none."""
FIGURES = 6
KEPT = {"cv2_input", "cv2_output", "cov_lengths", "cv2_arrival"}
"""What a load says that is not observed."""


@dataclass(slots=True)
class Demand:
    """Histories of the servers' rates.

    Attributes
    ----------
    config : of the loop.
    """

    config: ControlConfig
    _rates: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)

    @property
    def bin_s(self) -> float:
        """Length of a bin of the history."""
        settings = self.config.forecast
        return self.config.interval_s if settings.method == "last" else settings.bin_s

    def knows(self, server: str) -> bool:
        """Whether a server has a history."""
        return server in self._rates

    def recall(self, server: str, rates_per_s: list[float], now_s: float) -> None:
        """Begin a history with rates in bins, the last one now."""
        count = len(rates_per_s)
        past = ((now_s - (count - 1 - i) * self.bin_s, rate) for i, rate in enumerate(rates_per_s))
        self._rates[server] = deque((at, rate) for at, rate in past if math.isfinite(rate))

    def forget_after(self, now_s: float) -> None:
        """Leave out what is stamped later than now: a clock was set back."""
        for history in self._rates.values():
            while history and history[-1][0] > now_s:
                history.pop()

    def load(self, server: Server, observation: Observation, now_s: float) -> Load | None:
        """Note a server's rate, and return the load to plan for; None for none."""
        settings, history = self.config.forecast, self._rates.setdefault(server.name, deque())
        if observation.state in ("fresh", "idle"):
            history.append((now_s, observation.rate_per_s))
        while history and history[0][0] < now_s - settings.history_s:
            history.popleft()
        bins = self._bins(history, now_s) or [observation.rate_per_s]
        if observation.state in ("fresh", "idle") and settings.method == "last":
            bins[-1] = observation.rate_per_s
        found = forecast_rate(
            bins,
            steps=max(math.ceil((self.config.interval_s + settings.startup_s) / self.bin_s), 1),
            bin_s=self.bin_s if settings.method != "last" else self.config.prometheus.window_s,
            method=settings.method,
            quantile=settings.quantile,
            season_bins=round(settings.season_s / self.bin_s),
        )
        rate = float(f"{max(found.quantile_per_s, 0.0):.{FIGURES}g}")
        if rate < LEAST_RATE_PER_S or not math.isfinite(observation.output_tokens):
            return None
        kept = {} if server.load is None else server.load.model_dump(include=KEPT)
        return Load(
            rate_per_s=rate,
            input_tokens=float(f"{observation.input_tokens:.4g}"),
            output_tokens=max(float(f"{observation.output_tokens:.4g}"), 1.0),
            **kept,
        )

    def _bins(self, history: deque[tuple[float, float]], now_s: float) -> list[float]:
        """Mean rates in bins that end now; NaN for bins without any."""
        sums: dict[int, list[float]] = {}
        for at, rate in history:
            sums.setdefault(int((now_s - at) // self.bin_s), []).append(rate)
        count = max(sums, default=-1) + 1
        return [math.fsum(sums[i]) / len(sums[i]) if i in sums else math.nan for i in reversed(range(count))]
