"""The load to come: from a history of rates, the mean and a quantile of the rate some time ahead."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Method = Literal["last", "trend", "seasonal"]
FloatArray = npt.NDArray[np.float64]

LEAST_BINS = 12
"""Bins of history below which `trend` is `last`."""
LEAST_SEASONS = 2.5
"""Seasons of history below which `seasonal` is `trend`."""
LEAST_ERRORS = 20
"""Past errors from which an error to come is judged; with fewer, arrivals are taken for Poisson's."""
TREND_BINS = 288
"""Latest bins that a trend is fitted to."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A rate to come.

    Attributes
    ----------
    method : that it was found by: another than asked for where the history is too short.
    mean_per_s, quantile_per_s : expected rate, and the quantile asked for; never below 0.
    """

    method: Method
    mean_per_s: float
    quantile_per_s: float


def forecast_rate(
    rates_per_s: Sequence[float] | FloatArray,
    *,
    steps: int,
    bin_s: float,
    method: Method = "last",
    quantile: float = 0.9,
    season_bins: int | None = None,
) -> Forecast:
    """Forecast a rate from its history.

    Parameters
    ----------
    rates_per_s : mean rate in each bin, the last one last; NaN where not known; shape (bins,), at least one known.
    steps : bins ahead.
    bin_s : length of a bin, s.
    method : `last` value; `trend`: exponential smoothing with a damped trend (Holt; ETS(A,Ad,N) of statsmodels);
        `seasonal`: STL, with an autoregression for what is left.
    quantile : of the rate to come.
    season_bins : bins of a season; needed for `seasonal`.

    Raises
    ------
    ValueError
        If no rate is known.
    """
    rates = _filled(np.asarray(rates_per_s, dtype=float))
    if method == "seasonal" and (season_bins is None or len(rates) < LEAST_SEASONS * season_bins):
        method = "trend"
    if method == "trend" and len(rates) < LEAST_BINS:
        method = "last"
    if method != "last":
        found = _seasonal(rates, steps, season_bins or 1) if method == "seasonal" else _trend(rates, steps)
        if found is not None:
            mean, deviation = found
            return _forecast(method, mean, mean + NormalDist().inv_cdf(quantile) * deviation)
    last = float(rates[-1])
    errors = rates[steps:] - rates[:-steps] if 0 < steps < len(rates) else np.zeros(0)
    if len(errors) >= LEAST_ERRORS:
        # Errors in proportion to the square root of the rate, as counts have them.
        scaled = errors / np.sqrt(np.maximum(rates[:-steps], 1 / bin_s))
        return _forecast("last", last, last + float(np.quantile(scaled, quantile)) * math.sqrt(max(last, 1 / bin_s)))
    return _forecast("last", last, last + NormalDist().inv_cdf(quantile) * math.sqrt(max(last, 0.0) / bin_s))


def _forecast(method: Method, mean: float, quantile: float) -> Forecast:
    return Forecast(method, max(mean, 0.0), max(quantile, 0.0))


def _filled(rates: FloatArray) -> FloatArray:
    known = np.flatnonzero(np.isfinite(rates))
    if not known.size:
        raise ValueError("no rate is known")
    return np.asarray(np.interp(np.arange(known[0], len(rates)), known, rates[known]), dtype=float)


def _trend(rates: FloatArray, steps: int) -> tuple[float, float] | None:
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    recent = pd.Series(rates[-TREND_BINS:])
    if recent.nunique() == 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged is judged by its figures
        fitted = ETSModel(recent, error="add", trend="add", damped_trend=True).fit(disp=False, maxiter=200)
        table = fitted.get_prediction(len(recent), len(recent) + steps - 1).summary_frame(alpha=0.32)
    return _sane(float(table["mean"].iloc[-1]), float(table["pi_upper"].iloc[-1] - table["pi_lower"].iloc[-1]) / 2)


def _seasonal(rates: FloatArray, steps: int, season_bins: int) -> tuple[float, float] | None:
    from statsmodels.tsa.arima.model import ARIMA
    from statsmodels.tsa.forecasting.stl import STLForecast

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = STLForecast(rates, ARIMA, model_kwargs={"order": (1, 1, 1)}, period=season_bins, robust=True)
        found = model.fit(fit_kwargs={"method_kwargs": {"maxiter": 50}})
        prediction = found.get_prediction(len(rates), len(rates) + steps - 1)
    mean = float(np.asarray(prediction.predicted_mean)[-1])
    return _sane(mean, float(np.sqrt(np.asarray(prediction.var_pred_mean)[-1])))


def _sane(mean: float, deviation: float) -> tuple[float, float] | None:
    return (mean, deviation) if math.isfinite(mean) and math.isfinite(deviation) and deviation >= 0 else None
