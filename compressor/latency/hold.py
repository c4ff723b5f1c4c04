"""The budget holds on the device: trim, export, time, and decide again with what was measured until it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from compressor.config import Budget
from compressor.latency.session import OnDevice

#: How far below its budget a network may be.
SLACK = 0.02
ROUNDS = 8


@dataclass
class Round:
    """One network on the device: what was predicted for it and what it took, in ms."""

    predicted_ms: float
    measured_ms: float
    original_ms: float
    limit_ms: float

    @property
    def used(self) -> float:
        """Fraction of the budget that it takes; above 1 is over."""
        return self.measured_ms / self.limit_ms


@dataclass
class Held:
    """How it went. ``best`` is the index of the round whose network was kept, ``None`` if none was under the budget."""

    rounds: list[Round] = field(default_factory=list)
    best: int | None = None

    @property
    def fastest(self) -> int:
        """The round with the fastest network."""
        return min(range(len(self.rounds)), key=lambda i: self.rounds[i].used)


def hold(
    budget: Budget,
    measure: Callable[[], OnDevice],
    predict: Callable[[], float],
    decide: Callable[[float], bool],
    *,
    rounds: int = ROUNDS,
) -> Held:
    """Measure the network in hand; while it is not within ``SLACK`` under the budget, decide again.

    Args:
        measure: times the network in hand against the original.
        predict: predicted ms of the network in hand.
        decide: makes another network with at most this predicted latency, as close to it as the grid allows; ``False``
            if that gives the same network as before.
    """
    held = Held()
    too_slow: float | None = None  # predicted ms of the fastest network that was over
    fast_enough: float | None = None
    for number in range(rounds):
        found, predicted = measure(), predict()
        limit = budget.value * found.original_ms if budget.relative else budget.value
        held.rounds.append(Round(predicted, found.compressed_ms, found.original_ms, limit))
        used = held.rounds[-1].used
        if used <= 1.0:
            if held.best is None or used > held.rounds[held.best].used:
                held.best = number
            fast_enough = predicted if fast_enough is None else max(fast_enough, predicted)
            if used >= 1.0 - SLACK:
                break
        else:
            too_slow = predicted if too_slow is None else min(too_slow, predicted)
        if number == rounds - 1:
            break
        goal = predicted / used * (1.0 - SLACK / 2)
        if too_slow is not None and fast_enough is not None and fast_enough < too_slow:
            goal = min(max(goal, fast_enough * 1.001), too_slow * 0.999)  # between what is known
        if not decide(goal):
            break
    return held
