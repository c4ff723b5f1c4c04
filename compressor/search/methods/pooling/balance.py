"""Which weight set trains which configuration: the balanced mixture (Javan et al., section 2.3).

``a[c, m]`` is how well weight set m does in configuration c, a moving average. ``p = softmax(a / tau)``, scaled along
both axes until its marginals are uniform, is the joint probability; a configuration is drawn uniformly and a weight set
by ``p(m | c)``. All of it is done with logarithms, as ``exp(a / tau)`` overflows long before the last temperature.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compressor.arrays import FloatArray

#: The Kullback-Leibler divergence of a marginal from the uniform one, and the largest ratio that is left beside it.
KL, RATIO = 1e-4, 1e-4
#: Scalings at most: at the lowest temperatures there may be no balanced distribution but in the limit.
MOST = 2000


def balanced(
    values: FloatArray, tau: float, start: FloatArray | None = None, most: int = MOST
) -> tuple[FloatArray, FloatArray]:
    """``log p`` with uniform marginals, and what was added to ``values / tau`` along the second axis.

    Iterative proportional fitting: rows and columns of ``exp(values / tau)`` are scaled in turn. Scaled rows sum to
    1 / C exactly; it ends when the columns' sums are 1 / M, up to ``KL`` and ``RATIO``, or after ``most`` turns.

    Args:
        values: a, shape (C, M).
        tau: temperature, above 0.
        start: the second return value for values like these, to go on from; shape (M,).
    """
    columns = values.shape[1]
    logits = values / tau
    added = np.zeros(columns) if start is None else start.copy()
    for _ in range(most):
        joint = _scaled_rows(logits + added)
        share = _log_sum(joint, 0)
        off = share + np.log(columns)
        p = np.exp(share)
        if float((p * off).sum()) < KL and float(np.abs(np.expm1(off)).max()) < RATIO:
            break
        added -= off
    return _scaled_rows(logits + added), added - added.mean()


def _scaled_rows(logits: FloatArray) -> FloatArray:
    scaled: FloatArray = logits - _log_sum(logits, 1)[:, None] - np.log(len(logits))
    return scaled


def _log_sum(values: FloatArray, axis: int) -> FloatArray:
    top = values.max(axis=axis, keepdims=True)
    found: FloatArray = np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return found


class Balance:
    """The moving averages, and the probabilities they give.

    Args:
        configurations, sets: C and M.
        beta: of the moving average: ``a = beta a + (1 - beta) found``.
        least: the temperature at the end; it begins at 1.
        linear: whether the temperature falls linearly, as in the paper, or by the same factor in every step.
    """

    def __init__(
        self, configurations: int, sets: int, *, beta: float = 0.9, least: float | None = None, linear: bool = True
    ) -> None:
        self.averages: FloatArray = np.ones((configurations, sets))
        self.seen = np.zeros((configurations, sets), dtype=np.int64)
        self.beta, self.linear = beta, linear
        self.least = 1 / (100 * sets) if least is None else least
        self.progress = 0.0
        self._added: FloatArray = np.zeros(sets)
        self._log_p: FloatArray | None = None

    @property
    def tau(self) -> float:
        """The temperature now: from 1 to ``least``."""
        if self.linear:
            return 1 + (self.least - 1) * self.progress
        return float(self.least**self.progress)

    def log_probabilities(self) -> FloatArray:
        """``log p(c, m)``, balanced; shape (C, M)."""
        if self._log_p is None:
            self._log_p, self._added = balanced(self.averages, self.tau, self._added)
        return self._log_p

    def of_sets(self, configuration: int) -> FloatArray:
        """``p(m | c)``, shape (M,)."""
        row = self.log_probabilities()[configuration]
        weights: FloatArray = np.exp(row - row.max())
        weights /= weights.sum()
        return weights

    def best(self, configuration: int) -> int:
        """The weight set that a configuration is judged with: the one of the highest ``p(m | c)`` that trained it."""
        row = np.where(self.seen[configuration] > 0, self.log_probabilities()[configuration], -np.inf)
        return int(row.argmax()) if np.isfinite(row).any() else int(self.log_probabilities()[configuration].argmax())

    def note(self, configuration: int, weights: int, found: float, progress: float) -> None:
        """What weight set ``weights`` scored in ``configuration``, in [0, 1], and how far the search is, in [0, 1]."""
        held = self.averages[configuration, weights]
        self.averages[configuration, weights] = self.beta * held + (1 - self.beta) * found
        self.seen[configuration, weights] += 1
        self.progress, self._log_p = progress, None

    def state_dict(self) -> dict[str, Any]:
        return {
            "averages": self.averages.tolist(),
            "seen": self.seen.tolist(),
            "progress": self.progress,
            "added": self._added.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.averages = np.array(state["averages"], dtype=np.float64)
        self.seen = np.array(state["seen"], dtype=np.int64)
        self.progress, self._added = float(state["progress"]), np.array(state["added"], dtype=np.float64)
        self._log_p = None
