"""Law `continuous-batching`: what engines are given by, the chain of their batches, and how they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, ndtr

from inferno_milp.queueing.arrays import TINY, BoolArray, FloatArray, IntArray, Takes
from inferno_milp.queueing.chain import Chain, solve_chain
from inferno_milp.queueing.gated import uniform_part_ms
from inferno_milp.queueing.parameters import mean_context, mean_context_tokens

KV_HEADROOM = 0.9
"""Share of the KV cache that mean requests may fill: beyond it sequences are preempted, and computed again."""
MANY_CHUNKS, TOLD_APART = 16, 200
"""With more chunks on average than the first, their last is half full; with fewer, so many are told apart."""
FULL_CHUNK = 1 - 1e-9
"""A chunk that fills its iteration counts as taking this share of it, so that nothing is divided by 0."""
LEAST_PEAKEDNESS = 0.05
"""Even equal requests at a constant pace vary in number by a fraction of one."""


@dataclass(frozen=True, slots=True)
class ContinuousParameters(Takes):
    """Parameters of engines, one-dimensional, κ and q folded in.

    Attributes
    ----------
    alpha_ms, beta_ms : α, and β + κ·(mean context).
    decode_base_ms : α, or 0 where nothing is decoded (K = 1).
    prompt_base_ms : base of an iteration with prompt work, max(α, γ); 0 where there are no prompts.
    stall_ms : how much longer prompt work makes an iteration, its tokens apart.
    prompt_ms : s, time of one whole prompt's tokens.
    prompt_cv2 : its squared coefficient of variation, prompt lengths lognormal.
    uniform_ms : of engines that only compute prompts, `uniform_part_ms`; 0 of others.
    decodes : K − 1, decode iterations of a request.
    chunks : c, mean number of iterations that a prompt is cut into.
    chunk_fill : f, share of an iteration's room for prompts that a chunk takes up.
    spill : how many more the first prompt ahead of it costs.
    input_tokens, token_budget : I and M.
    most_decoding, most_prompts : decoding sequences, and prompts per iteration, once the token budget is used up.
    budget_interval_ms : time between departures then; 0 where a full batch does not use it up.
    cv2_input, cv2_output, cv2_arrival : squared coefficients of variation.
    overhead_ms, lag_iterations : added to the time to first token.
    max_batch, max_queue : N, held down by the KV cache, and Q, with what that leaves waiting.
    max_blocking, fits : as in `Engines`.
    """

    alpha_ms: FloatArray
    beta_ms: FloatArray
    decode_base_ms: FloatArray
    prompt_base_ms: FloatArray
    stall_ms: FloatArray
    prompt_ms: FloatArray
    prompt_cv2: FloatArray
    uniform_ms: FloatArray
    decodes: FloatArray
    chunks: FloatArray
    chunk_fill: FloatArray
    spill: FloatArray
    input_tokens: FloatArray
    token_budget: FloatArray
    most_decoding: FloatArray
    most_prompts: FloatArray
    budget_interval_ms: FloatArray
    cv2_input: FloatArray
    cv2_output: FloatArray
    cv2_arrival: FloatArray
    overhead_ms: FloatArray
    lag_iterations: FloatArray
    max_batch: IntArray
    max_queue: FloatArray
    max_blocking: FloatArray
    fits: BoolArray

    @classmethod
    def make(cls, parameters: dict[str, FloatArray]) -> Self:
        """Fold κ and q into the slopes, cut prompts into chunks, and hold the batch down to what the KV cache takes."""
        inputs, outputs, budget = parameters["input_tokens"], parameters["output_tokens"], parameters["token_budget"]
        decodes, cv2_input = outputs - 1, parameters["cv2_input"]
        kappa_ms, context = parameters["kappa_ms"], mean_context(parameters)
        kv_tokens = np.where(np.isnan(parameters["kv_tokens"]), np.inf, parameters["kv_tokens"])
        max_batch = np.minimum(parameters["max_batch"], _held(kv_tokens, context))
        max_queue = parameters["max_queue"] + parameters["max_batch"] - max_batch
        prompts = inputs > 0
        most_decoding = np.where(prompts, decodes * budget / np.maximum(inputs + decodes, TINY), np.inf)
        left = np.maximum(budget - np.minimum(max_batch, most_decoding), 1.0)
        chunks = np.where(prompts, _mean_chunks(inputs, cv2_input, left), 0.0)
        chunk_fill = np.minimum(inputs / left / np.maximum(chunks, 1.0), FULL_CHUNK)
        second = np.where(prompts, _mean_chunks(2 * inputs, cv2_input / 2, left), 0.0)
        alpha_ms = parameters["alpha_ms"]
        beta_ms = parameters["beta_ms"] + kappa_ms * context
        delta_ms = parameters["delta_ms"] + kappa_ms * (chunks + 1) / 2
        linear_ms, quadratic_ms = delta_ms * inputs, parameters["prefill_quadratic_ms"] * inputs**2
        prompt_ms = linear_ms + quadratic_ms * (1 + cv2_input)
        prompt_cv2 = _cv2_of_prompts(linear_ms, quadratic_ms, cv2_input)
        decode_base_ms = np.where(decodes > 0, alpha_ms, 0.0)
        prompt_base_ms = np.where(prompts, np.maximum(alpha_ms, parameters["gamma_ms"]), 0.0)
        uniform_ms, only = np.zeros_like(prompt_ms), np.flatnonzero((decodes == 0) & prompts)
        if only.size:
            s_ms = np.maximum(prompt_ms[only], TINY)
            uniform_ms[only] = uniform_part_ms(prompt_base_ms[only], s_ms, s_ms**2 * (1 + prompt_cv2[only]))
        with np.errstate(divide="ignore", invalid="ignore"):
            most_prompts = np.where(prompts, np.maximum(budget - most_decoding, TINY) / inputs, 0.0)
            full_ms = prompt_base_ms + beta_ms * most_decoding + most_prompts * prompt_ms
            interval_ms = np.where(prompts & (most_decoding < max_batch), full_ms / most_prompts, 0.0)
        return cls(
            alpha_ms=alpha_ms,
            beta_ms=beta_ms,
            decode_base_ms=decode_base_ms,
            prompt_base_ms=prompt_base_ms,
            stall_ms=np.where(prompts, prompt_base_ms - decode_base_ms, 0.0),
            prompt_ms=prompt_ms,
            prompt_cv2=prompt_cv2,
            uniform_ms=uniform_ms,
            decodes=decodes,
            chunks=chunks,
            chunk_fill=chunk_fill,
            spill=second - chunks,
            input_tokens=inputs,
            token_budget=budget,
            most_decoding=most_decoding,
            most_prompts=most_prompts,
            budget_interval_ms=interval_ms,
            cv2_input=cv2_input,
            cv2_output=parameters["cv2_output"],
            cv2_arrival=parameters["cv2_arrival"],
            overhead_ms=parameters["overhead_ms"],
            lag_iterations=parameters["lag_iterations"],
            max_batch=max_batch.astype(np.int64),
            max_queue=max_queue,
            max_blocking=parameters["max_blocking"],
            fits=_too_long(parameters, kv_tokens) <= parameters["max_blocking"],
        )

    @property
    def stay(self) -> FloatArray:
        """Iterations that a request is in the batch for, K − 1 + c."""
        return np.maximum(self.decodes + self.chunks, TINY)

    @property
    def only_prompts(self) -> BoolArray:
        """Whether there is nothing but prompts, K = 1."""
        return np.asarray((self.decodes == 0) & (self.input_tokens > 0))

    @property
    def base_ms(self) -> FloatArray:
        """What S(n), the mean time of a request in a batch of n, comes to at n = 0, without stalls."""
        return self.decodes * self.decode_base_ms + self.chunks * self.prompt_base_ms

    @property
    def slope_ms(self) -> FloatArray:
        """Slope of S(n), without stalls."""
        return self.decodes * self.beta_ms + self.prompt_ms

    @property
    def peakedness(self) -> FloatArray:
        """Variance of the number of requests in an endless batch, as a multiple of its mean: 1 + (c²_a − 1)·η.

        η = E min(S, S')/E S of two stays S and S', taken as gamma distributed: 1/2 for exponential ones, 1 for equal
        ones. With c²_a > 1 it is taken as 1/2.
        """
        cv2 = self.cv2_output * (self.decodes / self.stay) ** 2
        shape = 1 / np.maximum(cv2, 1e-6)
        gini = np.exp(gammaln(shape + 0.5) - gammaln(shape + 1)) / np.sqrt(np.pi)
        alike = np.where(self.cv2_arrival < 1, 1 - gini, 0.5)
        return np.asarray(np.maximum(1 + (self.cv2_arrival - 1) * alike, LEAST_PEAKEDNESS))

    @property
    def power(self) -> FloatArray | None:
        """Exponent of the chain's ratios for arrivals that are not Poisson."""
        return None if (self.cv2_arrival == 1).all() else 1 / self.peakedness

    def prompt_work(self, prompts: FloatArray) -> FloatArray:
        """Return the probability that an iteration holds prompt work, where `prompts` begin in each on average.

        Each prompt works in c iterations. Chunks that leave most of the room free come together by chance, as in
        1 − e^(−c·prompts); chunks that fill an iteration keep others out of it, as in c·prompts. A chunk that fills a
        share f of the room lies between: (1 − e^(−(1 − f)·c·prompts))/(1 − f), at most 1.
        """
        free = 1 - self.chunk_fill
        return np.minimum(-np.expm1(-free * self.chunks * prompts) / free, 1.0)

    @property
    def full_service_ms(self) -> FloatArray:
        """S(N), mean time of a request in a full batch."""
        batch = self.max_batch
        stalls = self.stall_ms * self.decodes * self.prompt_work((batch - 1) / self.stay)
        service = self.base_ms + self.slope_ms * batch + stalls
        return np.asarray(np.maximum(service, batch * self.budget_interval_ms))

    @property
    def most_others(self) -> FloatArray:
        """N − 1."""
        return np.asarray(self.max_batch - 1, dtype=float)

    def chain(self, rate: FloatArray) -> Chain:
        """Solve the chain of the batch at the given arrival rates (requests/ms)."""
        slope, budget = rate * self.slope_ms, rate * self.budget_interval_ms
        stalls = rate * self.stall_ms * self.decodes
        base, free = rate * self.base_ms, 1 - self.chunk_fill
        # Stalls beside n − 1 others, `prompt_work` of (n − 1)/(K−1+c): base + min(most − spared·kept^(n−1), stalls).
        most, spared, kept = stalls / free, stalls / free, np.exp(-free * self.chunks / self.stay)
        has_stalls, has_budget = bool(stalls.any()), bool(budget.any())

        def fill_load(n: int, out: FloatArray) -> None:
            """Write ρ_n = λ·max(S(n)/n, time between departures when the token budget is used up)."""
            active = out.size
            if has_stalls:
                np.subtract(most[:active], spared[:active], out=out)
                np.minimum(out, stalls[:active], out=out)
                out += base[:active]
                out *= 1 / n
                spared[:active] *= kept[:active]
            else:
                np.multiply(base[:active], 1 / n, out=out)
            out += slope[:active]
            if has_budget:
                np.maximum(out, budget[:active], out=out)

        with np.errstate(divide="ignore"):
            full_rate = self.max_batch / self.full_service_ms
        return solve_chain(rate, full_rate, fill_load, self.max_batch, self.max_queue, power=self.power)


def largest_kv_batch(
    kv_tokens: npt.ArrayLike,
    *,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    cv2_output: npt.ArrayLike,
    cov_lengths: npt.ArrayLike = 0.0,
) -> FloatArray:
    """Return the largest batch of mean requests that a KV cache holds, at least 1; infinity where it is NaN."""
    given = np.asarray(kv_tokens, dtype=float)
    context = mean_context_tokens(
        input_tokens=input_tokens, output_tokens=output_tokens, cv2_output=cv2_output, cov_lengths=cov_lengths
    )
    return _held(np.where(np.isnan(given), np.inf, given), context)


def _held(kv_tokens: FloatArray, context: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(np.floor(KV_HEADROOM * kv_tokens / context), 1.0))


def _too_long(parameters: dict[str, FloatArray], kv_tokens: FloatArray) -> FloatArray:
    """Share of requests that are too long for the whole cache: prompt and output together lognormal, or fixed."""
    inputs, outputs = parameters["input_tokens"], parameters["output_tokens"]
    mean = inputs + outputs - 1
    variance = parameters["cv2_input"] * inputs**2 + parameters["cv2_output"] * outputs * np.maximum(outputs - 1, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(np.log1p(variance / mean**2))
        above = ndtr((np.log(mean) - scale**2 / 2 - np.log(kv_tokens)) / scale)
    return np.asarray(np.where((variance > 0) & (mean > 0), above, mean > kv_tokens), dtype=float)


def _cv2_of_prompts(linear_ms: FloatArray, quadratic_ms: FloatArray, cv2: FloatArray) -> FloatArray:
    """Squared coefficient of variation of a·X + b·X², X lognormal with a mean of 1: E[X^k] = (1 + c²)^(k(k−1)/2)."""
    more = 1 + cv2
    mean = linear_ms + quadratic_ms * more
    square = linear_ms**2 * more + 2 * linear_ms * quadratic_ms * more**3 + quadratic_ms**2 * more**6
    return np.asarray(np.maximum(square / np.maximum(mean, TINY) ** 2 - 1, 0.0))


def _mean_chunks(tokens: FloatArray, cv2: FloatArray, room: FloatArray) -> FloatArray:
    """E⌈X/room⌉ of a prompt of X tokens: lognormal with this mean and variability, or fixed."""
    fixed = np.maximum(np.ceil(tokens / room), 1.0)
    varied = np.flatnonzero((cv2 > 0) & (tokens > 0))
    if varied.size:
        scale = np.sqrt(np.log1p(cv2[varied]))
        location = np.log(tokens[varied]) - scale**2 / 2
        limits = np.log(room[varied])
        more = np.ones(varied.size)
        for count in range(1, TOLD_APART):
            beyond = ndtr((location - limits - np.log(count)) / scale)
            more += beyond
            if beyond.max() < 1e-9:
                break
        ratio = tokens[varied] / room[varied]
        fixed[varied] = np.where(ratio > MANY_CHUNKS, ratio + 0.5, np.maximum(more, 1.0))
    return fixed
