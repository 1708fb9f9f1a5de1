"""A client of Prometheus: instant and range queries, with retries, a deadline, and words for whatever goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from inferno_milp.control.config import PrometheusSettings
from inferno_milp.control.retries import retrying
from inferno_milp.errors import InfernoError

LONGEST_WAIT_S = 2.0
MOST_BYTES = 50_000_000
"""An answer larger than this is not read."""
MOST_POINTS = 10_000
"""Points per series that Prometheus gives in one answer are 11,000."""
RETRIED = (408, 425, 429, 500, 502, 503, 504)


class PrometheusError(InfernoError):
    """Prometheus did not answer, or not what was asked for."""

    def __init__(self, words: str, *, is_transient: bool = False):
        self.is_transient = is_transient
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer.

    Attributes
    ----------
    labels : that tell it from the others.
    points : times, s since 1970, and values; one for an instant query. Values may be NaN or infinite.
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """The last value."""
        return self.points[-1][1] if self.points else math.nan


class PrometheusClient:
    """Asks one Prometheus server.

    Parameters
    ----------
    settings : where it is, and how long to wait.
    pause : waits so many seconds between tries.
    """

    def __init__(self, settings: PrometheusSettings, pause: Callable[[float], None] = time.sleep):
        self._settings = settings
        self._pause = pause
        self._deadline = math.inf
        verify: Any = settings.verify
        if settings.verify and settings.ca_file is not None:
            import ssl

            verify = ssl.create_default_context(cafile=settings.ca_file)
        self._http = httpx.Client(base_url=settings.url.rstrip("/"), timeout=settings.timeout_s, verify=verify)

    def begin_round(self) -> None:
        """Give the queries that follow one deadline together."""
        self._deadline = time.monotonic() + self._settings.deadline_s

    def query(self, text: str, at_s: float) -> list[Series]:
        """Ask for values at a time.

        Raises
        ------
        PrometheusError
            If there is no answer in time, or none that makes sense.
        """
        return self._ask("query", {"query": text, "time": f"{at_s:.3f}"})

    def query_range(self, text: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Ask for values from a time to another; errors as of `query`."""
        found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        while start_s <= end_s:
            last = min(start_s + MOST_POINTS * step_s, end_s)
            span = {"query": text, "start": f"{start_s:.3f}", "end": f"{last:.3f}", "step": f"{step_s:g}"}
            for series in self._ask("query_range", span):
                found.setdefault(tuple(sorted(series.labels.items())), []).extend(series.points)
            start_s = last + step_s
        return [Series(dict(labels), tuple(points)) for labels, points in found.items()]

    def _ask(self, path: str, parameters: dict[str, str]) -> list[Series]:
        def may_succeed(error: BaseException) -> bool:
            return isinstance(error, PrometheusError) and error.is_transient

        tries = retrying(self._settings.retries, LONGEST_WAIT_S, may_succeed, self._pause)
        return tries(self._ask_once, path, parameters)

    def _ask_once(self, path: str, parameters: dict[str, str]) -> list[Series]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise PrometheusError(f"no answer within {self._settings.deadline_s:g} s for all queries together")
        try:
            response = self._http.post(
                f"/api/v1/{path}",
                data=parameters,
                headers=self._headers(),
                timeout=min(self._settings.timeout_s, left),
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            words = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or repr(error)
            raise PrometheusError(f"{self._settings.url}: {words}", is_transient=True) from None
        if len(response.content) > MOST_BYTES:
            raise PrometheusError(f"{self._settings.url}: an answer of {len(response.content)} bytes")
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("status") != "success":
            reason = document.get("error") if isinstance(document, dict) else None
            words = f"HTTP {response.status_code}: {reason or 'no JSON of Prometheus'}"
            is_transient = response.status_code in RETRIED
            raise PrometheusError(f"{self._settings.url}: {words}", is_transient=is_transient)
        try:
            return [_series(item) for item in document["data"]["result"]]
        except (LookupError, TypeError, ValueError, AttributeError):
            raise PrometheusError(f"{self._settings.url}: an answer in no known form") from None

    def _headers(self) -> dict[str, str]:
        if self._settings.token_file is None:
            return {}
        try:
            token = Path(self._settings.token_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise PrometheusError(f"{self._settings.token_file}: {getattr(error, 'strerror', error)}") from None
        return {"Authorization": f"Bearer {token}"}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _series(item: Any) -> Series:
    points = item["values"] if "values" in item else [item["value"]]
    labels = {str(name): str(value) for name, value in item["metric"].items()}
    return Series(labels, tuple((float(at), float(value)) for at, value in points))
