"""Law `continuous-batching`: engines that only compute prompts (K = 1): those of disaggregation, embeddings, labels.

Such an engine serves in batches. Who finds it idle begins at once; who comes during an iteration begins with the next
one, with all who came during the same (as many as fit), and all of a batch are done together. docs/queueing.md derives
the formulas: a gated queue where batches are not full, one server with the time per prompt of full batches where they
are, whichever is later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from inferno_milp.queueing.arrays import TINY, FloatArray, Takes
from inferno_milp.queueing.continuous_means import FULLEST, LEAST_SPREAD, arrivals_within, prompts_met
from inferno_milp.queueing.continuous_parameters import ContinuousParameters
from inferno_milp.queueing.gated import gated_iterations
from inferno_milp.queueing.tails import uniform_exponentials_exceed


@dataclass(frozen=True, slots=True)
class PromptsOnly(Takes):
    """Times to the end of the prompt.

    Attributes
    ----------
    busy : probability that an arrival finds the engine at work.
    least_ms : what nobody is faster than.
    own_ms : mean time alone, bases and tokens.
    batch_ms : mean time that a prompt is in its batch for, which all of the batch are.
    uniform_ms, more_ms, spread_ms : what who finds the engine at work takes beyond the least is a uniform time up to
        the first and exponential ones of the other means.
    """

    busy: FloatArray
    least_ms: FloatArray
    own_ms: FloatArray
    batch_ms: FloatArray
    uniform_ms: FloatArray
    more_ms: FloatArray
    spread_ms: FloatArray

    @property
    def mean_ms(self) -> FloatArray:
        """Mean time, waits included."""
        return self.own_ms + self.busy * (self.uniform_ms / 2 + self.more_ms)

    def exceeds(self, time_ms: FloatArray, lag_ms: FloatArray) -> FloatArray:
        """P(time > t), where who finds the engine at work is later by a lag."""
        late_ms, zero = time_ms - self.least_ms, np.zeros_like(time_ms)
        alone = uniform_exponentials_exceed(late_ms, zero, zero, self.spread_ms)
        found = uniform_exponentials_exceed(late_ms - lag_ms, self.uniform_ms, self.more_ms, self.spread_ms)
        return np.asarray((1 - self.busy) * alone + self.busy * np.maximum(found, alone))


def solve_prompts(engines: ContinuousParameters, throughput: FloatArray) -> PromptsOnly:
    """Solve engines that only compute prompts at the given rates (requests/ms)."""
    base_ms, prompt_ms = engines.prompt_base_ms, np.maximum(engines.prompt_ms, TINY)
    square = prompt_ms**2 * (1 + engines.prompt_cv2)
    load = np.minimum(throughput * prompt_ms, FULLEST)
    nobody, mean_ms, found_ms, _ = gated_iterations(base_ms, prompt_ms, square, throughput, load)
    # Prompts of a batch at the most; fewer than one where a prompt is cut.
    most = np.minimum(engines.max_batch, engines.token_budget / np.maximum(engines.input_tokens, TINY))
    together = np.minimum(np.maximum(np.minimum(throughput * mean_ms + nobody, most), 1.0), np.maximum(most, TINY))
    own_ms = engines.chunks * base_ms + prompt_ms
    busy = np.clip(throughput * (prompt_ms + base_ms / np.where(most < 1, most, together)), TINY, 1.0)
    finds = _finds(engines, busy, throughput * own_ms)
    # Batches that are not full: what is left of this one, and the next one with all who came during this one.
    came = 2 * arrivals_within(throughput * found_ms / 2, engines.cv2_arrival)
    met = prompts_met(engines, np.minimum(busy, FULLEST))
    longest_ms = np.minimum(engines.uniform_ms, base_ms + prompt_ms * np.maximum(most, 1.0))
    uniform_ms = np.minimum(found_ms, longest_ms)
    others = np.minimum(came, np.maximum(most - 1, 0.0))
    gated_ms = (found_ms - uniform_ms) / 2 + others * prompt_ms
    # Full ones: the work ahead at the pace of full batches, and half of the others in one's own.
    each_ms = prompt_ms + base_ms / most
    spare = 1 - np.minimum(throughput * each_ms, FULLEST)
    relative = engines.prompt_cv2 * (prompt_ms / each_ms) ** 2
    bursts = (np.maximum(engines.cv2_arrival, 1.0) + relative) / (1 + relative)
    queue_ms = throughput * each_ms**2 * (1 + relative) / (2 * spare) * bursts * prompts_met(engines, 1 - spare)
    ahead_ms = np.minimum(queue_ms / busy, (engines.max_queue + 1) * each_ms)
    full_ms = ahead_ms + each_ms * others / 2 - longest_ms / 2
    more_ms = np.maximum(np.maximum(met * gated_ms, full_ms), 0.0)
    spread_ms = prompt_ms * np.sqrt(np.minimum(engines.prompt_cv2, 1.0))
    return PromptsOnly(
        busy=finds,
        least_ms=own_ms - spread_ms,
        own_ms=own_ms,
        batch_ms=own_ms + finds * others * prompt_ms,
        uniform_ms=met * uniform_ms,
        more_ms=more_ms,
        spread_ms=spread_ms,
    )


def _finds(engines: ContinuousParameters, busy: FloatArray, used: FloatArray) -> FloatArray:
    """How many arrivals find the engine at work: gamma times between them, the one before alone; Poisson ones: `busy`.

    Regular arrivals of varied prompts come at more or less regular moments of the work.
    """
    given = engines.cv2_arrival
    cv2 = np.where(given < 1, np.clip(given + engines.prompt_cv2, LEAST_SPREAD, 1.0), given)
    soon = gammainc(1 / cv2, used / cv2)
    return np.where(given == 1, busy, np.where(given < 1, np.minimum(busy, soon), np.maximum(busy, soon)))
