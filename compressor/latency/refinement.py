"""The budget holds on the device: time a network, and decide again with what was measured until it does.

Rounds time files cut from the original's export, which takes seconds. The network that they end with is trimmed and
exported as the user gets it, and timed once more; if that is over the budget, the rounds go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from compressor.budget import Budget
from compressor.search.result import SearchResult
from profilers.base import THIS_MACHINE
from profilers.in_turn import OnDevice

#: How far below its budget a network may be.
SLACK = 0.02
ROUNDS = 10
_DELIVERIES = 4


@dataclass
class Round:
    """One network on the device: what was predicted for it and what it took, in ms.

    ``margin`` is what its share of the budget is uncertain by, a fraction; ``exported`` says that it is the network as
    delivered.
    """

    predicted_ms: float
    measured_ms: float
    original_ms: float
    limit_ms: float
    margin: float = 0.0
    exported: bool = False

    @property
    def used(self) -> float:
        """Fraction of the budget that it takes; above 1 is over."""
        return self.measured_ms / self.limit_ms

    @property
    def holds(self) -> bool:
        """Whether it is under the budget beyond the doubt that a quiet machine leaves (half of ``SLACK`` at most)."""
        least = SLACK / 4 if self.margin else 0.0  # another process may find another half a percent
        return self.used <= 1.0 - max(min(self.margin, SLACK / 2), least)

    @property
    def fits(self) -> bool:
        """Whether it is under the budget by no more than ``SLACK``."""
        return self.holds and self.used >= 1.0 - SLACK


@dataclass
class RefinementLog:
    """How it went.

    Attributes:
        rounds: what was timed, and ``networks`` of which decision.
        bias: what exports take over what the files that were cut take.
    """

    rounds: list[Round] = field(default_factory=list)
    networks: list[SearchResult] = field(default_factory=list)
    bias: float = 1.0

    def note(
        self, budget: Budget, network: SearchResult, predicted_ms: float, found: OnDevice, exported: bool
    ) -> Round:
        """Add a round.

        ``bias`` is the factor from timings of pruned files to timings of exports; a round that is exported sets it.
        """
        limit = budget.value * found.original_ms if budget.relative else budget.value
        took = found.compressed_ms * (1.0 if exported else self.bias)
        cut = next((r for n, r in zip(self.networks, self.rounds, strict=True) if n is network and exported), None)
        round_ = Round(predicted_ms, took, found.original_ms, limit, found.margin, exported)
        if cut is not None and not cut.exported:
            factor = round_.used / cut.used
            self.bias *= factor
            for earlier in self.rounds:
                earlier.measured_ms *= 1.0 if earlier.exported else factor
        self.rounds.append(round_)
        self.networks.append(network)
        return round_

    @property
    def best(self) -> int | None:
        """Networks that were exported count as that says; others by the file that was cut."""
        exported = {id(network) for network, round_ in zip(self.networks, self.rounds, strict=True) if round_.exported}
        under = [
            index
            for index, (network, round_) in enumerate(zip(self.networks, self.rounds, strict=True))
            if round_.holds and (round_.exported or id(network) not in exported)
        ]
        return max(under, key=lambda index: self.rounds[index].used, default=None)

    @property
    def fastest(self) -> int:
        """The round with the fastest network."""
        return min(range(len(self.rounds)), key=lambda index: self.rounds[index].used)

    @property
    def kept(self) -> int:
        """The round whose network to go on with."""
        return self.fastest if self.best is None else self.best

    @property
    def hopeless(self) -> bool:
        """Whether nothing was faster than the original."""
        return self.best is None and self.rounds[self.fastest].measured_ms >= self.rounds[self.fastest].original_ms

    def failure(self, target: str) -> str:
        """Why no network under the budget comes back, in one line."""
        best = self.rounds[self.fastest]
        if self.hopeless:
            return (
                f"No network faster than the original was found on {target}: the best of {len(self.rounds)} took "
                f"{best.measured_ms:.3g} ms, the original {best.original_ms:.3g} ms. The original comes back unchanged."
            )
        return (
            f"The latency budget of {best.limit_ms:.3g} ms does not hold on the device: the fastest of "
            f"{len(self.rounds)} networks takes {best.measured_ms:.3g} ms. Raise the budget, or stop other work on the "
            "machine and run again."
        )

    def noise(self, place: str = THIS_MACHINE) -> str | None:
        """One line if ``place`` was too noisy to tell whether a network is within ``SLACK`` of its budget."""
        margin = self.rounds[self.kept].margin
        if margin <= SLACK / 2:
            return None
        return (
            f"{place} is too noisy to hold a latency budget within {SLACK:.0%}: what the result takes, over "
            f"what the original takes, is only known to {margin:.1%}. Stop other work and run again."
        )

    @property
    def goal_ms(self) -> float:
        """Predicted latency to aim at next: between the networks on either side of the budget, else in proportion."""
        aim = 1.0 - (SLACK + min(self.rounds[-1].margin, SLACK)) / 2
        over = min((r for r in self.rounds if not r.holds), key=lambda r: r.predicted_ms, default=None)
        under = max((r for r in self.rounds if r.holds), key=lambda r: r.predicted_ms, default=None)
        if over is not None and under is not None and under.predicted_ms < over.predicted_ms:
            share = (aim - under.used) / max(over.used - under.used, 1e-9)
            return under.predicted_ms + min(max(share, 0.02), 0.98) * (over.predicted_ms - under.predicted_ms)
        closest = min(self.rounds[-3:], key=lambda r: abs(r.used - aim))
        return closest.predicted_ms * aim / closest.used


def hold(
    budget: Budget,
    first: SearchResult,
    predict: Callable[[SearchResult], float],
    measure: Callable[[SearchResult], OnDevice],
    decide: Callable[[float, list[SearchResult]], SearchResult | None],
    confirm: Callable[[SearchResult], tuple[SearchResult, OnDevice]],
    *,
    rounds: int = ROUNDS,
) -> RefinementLog:
    """Measure networks until one is within ``SLACK`` under the budget.

    Args:
        predict: predicted ms of a network.
        measure: times a network against the original.
        decide: another network with about this predicted latency and not more, none of those timed before; ``None`` if
            there is none.
        confirm: trims and exports a network as the user gets it, and times that; it may have to change the network.
    """
    held = RefinementLog()

    def note(network: SearchResult, found: OnDevice, exported: bool = False) -> Round:
        return held.note(budget, network, predict(network), found, exported)

    def deliver(network: SearchResult) -> Round:
        changed, found = confirm(network)
        held.networks = [changed if known is network else known for known in held.networks]
        return note(changed, found, exported=True)

    network: SearchResult | None = first
    for number in range(rounds):
        if network is None:
            break
        if note(network, measure(network)).fits and deliver(network).fits:
            return held
        if number < rounds - 1:
            network = decide(held.goal_ms, held.networks)
            if network is None and held.best is None:  # what is under that goal was timed, and is too slow
                lowest = min(round_.predicted_ms for round_ in held.rounds)
                network = decide(lowest * (1.0 - SLACK), held.networks)
    for _ in range(_DELIVERIES):  # the closest of those that were only cut may turn out to be over
        if held.rounds[held.kept].exported or held.hopeless:
            break
        deliver(held.networks[held.kept])
    return held
