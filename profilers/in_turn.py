"""Files of whole networks timed in turn with one of them, until it is known how many times as long the others take.

Bursts of a network stand between bursts of the one it is compared with, because contention for caches, memory and
clocks slows both down alike. Networks are loaded anew again and again: where a network comes to lie in memory makes it
faster or slower for as long as it is loaded, on several cores by some percent, and whoever loads it next meets another
case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from profilers.base import Runner, Runtime
from profilers.contention import BUSY
from profilers.interleave import CHEAP_LOAD_S, runs_in_turn
from profilers.stats import middle_ratio, paired_ratio, quiet_ms

#: Networks are timed for more rounds until they are known to this fraction on average, at most this many times as long.
_CERTAIN, _MORE_ROUNDS = 0.015, 6
#: Loads, or rounds of what is loaded once, that a comparison takes at least: fewer have no interval to speak of.
_LEAST_ROUNDS = 9
#: Turns that one load gives at most.
_MOST_TURNS = 5
#: A network this far from its limit, a fraction, will not be the one that is kept.
_FAR = 0.04


@dataclass(frozen=True)
class Timed:
    """Networks timed in turn with a reference, in ms; ``busy`` says that others held the cores meanwhile."""

    reference_ms: float
    networks_ms: dict[str, float]
    busy: bool


@dataclass(frozen=True)
class OnDevice:
    """Two networks timed in turn: milliseconds of a run that nothing disturbed, and their ratio round by round.

    ``margin`` is half the width of the ratio's 95 % interval, as a fraction of it.
    """

    original_ms: float
    compressed_ms: float
    ratio: float
    margin: float = 0.0


@dataclass(frozen=True)
class Limit:
    """What a network may take: milliseconds, or a fraction of what the original takes."""

    value: float
    relative: bool

    def of(self, original_ms: float) -> float:
        """Milliseconds."""
        return self.value * original_ms if self.relative else self.value


def time_networks(
    runtime: Runtime,
    paths: Mapping[str, Path],
    reference: Path,
    *,
    threads: int,
    batch: int,
    drift: Callable[[], float],
    reference_ms: float | None = None,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Timed:
    """Milliseconds of a network that serves as reference, the original as a rule, and of others.

    Args:
        drift: how much slower the device is now than undisturbed, as a factor.
        reference_ms: what the reference takes undisturbed, if that is known; else it is timed, and divided by drift.
        rounds: at least; more where they do not agree.

    Raises:
        RefusedError: the runtime cannot run one of them.
    """
    with ExitStack() as stack:

        def burst(network: Loaded) -> float:
            samples = network.runner.measure(network.runs + 1).after(1)
            waited.append(samples.waited)
            return quiet_ms(samples)

        loaded: list[Loaded] = []
        own: list[float] = []
        waited: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in paths}
        for number in range(_MORE_ROUNDS * rounds):
            if number >= rounds and np.mean([_uncertainty(v) for v in ratios.values()] or [0.0]) <= _CERTAIN:
                break
            if _cheap(loaded):
                stack.close()
                loaded = [_load(runtime, path, threads, batch, stack) for path in (reference, *paths.values())]
            ruler, *others = loaded
            slower = drift() if reference_ms is None else 1.0
            before = burst(ruler)
            for values, network in zip(ratios.values(), others, strict=True):
                took, after = burst(network), burst(ruler)
                values.append(2 * took / (before + after))
                own.append(after / slower)
                before = after
            own.append(before / slower)
            if progress is not None:
                progress(min(number + 1, rounds), rounds)
    scale = median(own) if reference_ms is None else reference_ms
    networks_ms = {name: scale * median(values) for name, values in ratios.items()}
    return Timed(scale, networks_ms, sum(waited) / len(waited) > BUSY)


def time_pair(
    runtime: Runtime,
    original: Path,
    other: Path,
    *,
    threads: int,
    batch: int,
    limit: Limit | None = None,
    seconds: float = 45.0,
    sure: float = 0.004,
) -> OnDevice:
    """Time a file in turn with the original's, until the ratio is known to ``sure`` or time is up.

    Args:
        limit: if the network is clearly not close to it, less precision will do.

    Raises:
        RefusedError: the runtime cannot run one of them.
    """
    turns: list[Turns] = []
    started = time.perf_counter()
    with ExitStack() as stack:
        loaded: list[Loaded] = []
        while True:
            if _cheap(loaded) and (not turns or turns[-1].enough(loaded)):
                stack.close()
                loaded = [_load(runtime, path, threads, batch, stack) for path in (original, other)]
                turns.append(Turns())
            turns[-1].add(loaded)
            found = _on_device(turns, by_load=_cheap(loaded))
            late = time.perf_counter() - started > seconds
            if found is not None and (found.margin <= sure or late or _far(found, limit)):
                return found


@dataclass(frozen=True)
class Loaded:
    """A network that is ready; ``runs`` of it make a burst, and loading it took ``seconds``."""

    runner: Runner
    runs: int
    seconds: float


@dataclass
class Turns:
    """Bursts of the original and of the other network, in ms, timed in turn by what was loaded once."""

    bursts: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    seconds: float = 0.0

    def add(self, loaded: Sequence[Loaded]) -> None:
        """Time one more burst of each."""
        started = time.perf_counter()
        for network, values in zip(loaded, self.bursts, strict=True):
            values.append(quiet_ms(network.runner.measure(network.runs + 1).after(1)))
        self.seconds += time.perf_counter() - started

    def enough(self, loaded: Sequence[Loaded]) -> bool:
        """Whether timing took as long as loading, or further turns would tell nothing new."""
        return self.seconds >= sum(network.seconds for network in loaded) or len(self.bursts[0]) >= _MOST_TURNS

    @property
    def ratio(self) -> float:
        """How many times as long the other takes."""
        original, other = self.bursts
        return paired_ratio(other, original).value


def _load(runtime: Runtime, path: Path, threads: int, batch: int, stack: ExitStack) -> Loaded:
    """A network, closed with the stack."""
    started = time.perf_counter()
    runner = runtime.load(path, threads=threads, batch=batch)
    seconds = time.perf_counter() - started
    stack.callback(runner.close)
    return Loaded(runner, runs_in_turn(runner), seconds)


def _cheap(loaded: Sequence[Loaded]) -> bool:
    """Whether networks can be loaded anew all along; an engine that takes long to build is loaded once."""
    return sum(network.seconds for network in loaded) <= CHEAP_LOAD_S * len(loaded)


def _on_device(turns: Sequence[Turns], *, by_load: bool) -> OnDevice | None:
    """What is known after these turns; None if they are too few. By load, each load counts once."""
    originals, others = ([value for turn in turns for value in turn.bursts[side]] for side in (0, 1))
    count = len(turns) if by_load else len(originals)
    if count < _LEAST_ROUNDS:
        return None
    found = middle_ratio([turn.ratio for turn in turns]) if by_load else paired_ratio(others, originals)
    middle = median(originals)
    return OnDevice(middle, middle * found.value, found.value, (found.high - found.low) / 2 / found.value)


def _far(found: OnDevice, limit: Limit | None) -> bool:
    """Whether a network is over or under its limit by much more than the doubt about it."""
    if limit is None:
        return False
    return abs(found.compressed_ms / limit.of(found.original_ms) - 1.0) > _FAR + 2 * found.margin


def _uncertainty(ratios: Sequence[float]) -> float:
    """By what fraction the median may be off, going by the spread of the middle half."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float((high - low) / middle / np.sqrt(len(ratios)))
