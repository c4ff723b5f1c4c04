"""Files of whole networks timed in turn with one of them, until it is known how many times as long the others take.

Bursts of a network stand between bursts of the one it is compared with, because contention for caches, memory and
clocks slows both down alike. Networks are loaded anew again and again: where a network comes to lie in memory makes it
faster or slower for as long as it is loaded, on several cores by some percent, and whoever loads it next meets another
case. What was timed while something slowed the device down does not count, see :mod:`profilers.moments`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from profilers.base import Runner, Runtime
from profilers.contention import BUSY
from profilers.interleave import CHEAP_LOAD_S, runs_in_turn
from profilers.moments import LEAST_QUIET, SLOWED, quick_ms, quiet_ratios
from profilers.stats import middle_ratio, paired_ratios, quiet_ms

#: Networks are timed for more rounds until they are known to this fraction on average, at most this many times as long.
_CERTAIN, _MORE_ROUNDS = 0.015, 6
#: Loads, or rounds of what is loaded once, that a comparison takes at least: fewer have no interval to speak of.
_LEAST_ROUNDS = 9
#: Loads after which a device that always says the same, such as a simulated one, is believed.
_SAME_ROUNDS = 3
#: Part of the time after which a device that is slowed down is taken to be as it is.
_PATIENCE = 0.2
#: Turns that one load gives at most.
_MOST_TURNS = 5
#: A network this far from its limit, a fraction, will not be the one that is kept.
_FAR = 0.04
#: It is clear on which side of an edge a network is, if its margin is no more than this, a fraction, and it is this
#: many margins away: more than one, as the question is put again and again until the answer is yes.
_SIDED, _AWAY = 0.01, 1.5


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
    """What a network may take: milliseconds, or a fraction of what the original takes.

    It should take no less than that without ``slack``, a fraction of it.
    """

    value: float
    relative: bool
    slack: float = 0.0

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
    slower: Callable[[], float],
    reference_ms: float | None = None,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Timed:
    """Milliseconds of a network that serves as reference, the original as a rule, and of others.

    Args:
        slower: how much slower the device is at this moment than undisturbed, as a factor.
        reference_ms: what the reference takes undisturbed, if that is known; else it is timed, and divided by that.
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
        ruled: list[Ruled] = []
        waited: list[float] = []
        beside: dict[str, list[Beside]] = {name: [] for name in paths}
        for number in range(_MORE_ROUNDS * rounds):
            if number >= rounds and _certain(ruled, beside.values(), patient=number < 2 * rounds):
                break
            if _cheap(loaded):
                stack.close()
                loaded = [_load(runtime, path, threads, batch, stack) for path in (reference, *paths.values())]
            ruler, *others = loaded
            factor = slower()
            before = burst(ruler)
            ruled.append(Ruled(before, factor))
            for found, network in zip(beside.values(), others, strict=True):
                took, after = burst(network), burst(ruler)
                found.append(Beside(took, before, after))
                ruled.append(Ruled(after, factor))
                before = after
            if progress is not None:
                progress(min(number + 1, rounds), rounds)
    slow = _slow_ms(ruled)
    scale = reference_ms
    if scale is None:
        scale = median(each.took / each.slower for each in ruled if each.took <= slow)
    networks_ms = {name: scale * median(_ratios(found, slow)) for name, found in beside.items()}
    return Timed(scale, networks_ms, sum(waited) / len(waited) > BUSY)


def time_pair(
    runtime: Runtime,
    original: Path,
    other: Path,
    *,
    threads: int,
    batch: int,
    slower: Callable[[], float] = lambda: 1.0,
    limit: Limit | None = None,
    seconds: float = 45.0,
    sure: float = 0.004,
) -> OnDevice:
    """Time a file in turn with the original's, until the ratio is known to ``sure`` or time is up.

    Args:
        slower: how much slower the device is at this moment than undisturbed, as a factor.
        limit: if it is clear on which side of it the network is, less precision will do.

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
            turns[-1].add(loaded, slower())
            passed = time.perf_counter() - started
            found = _on_device(turns, by_load=_cheap(loaded), patient=passed <= _PATIENCE * seconds)
            if found is not None and (found.margin <= sure or passed > seconds or _settled(found, limit)):
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
    slowed: int = 0
    seconds: float = 0.0

    def add(self, loaded: Sequence[Loaded], slower: float) -> None:
        """Time one more burst of each, while the device is ``slower`` times slower than undisturbed."""
        self.slowed += slower > SLOWED
        started = time.perf_counter()
        for network, values in zip(loaded, self.bursts, strict=True):
            values.append(quiet_ms(network.runner.measure(network.runs + 1).after(1)))
        self.seconds += time.perf_counter() - started

    def enough(self, loaded: Sequence[Loaded]) -> bool:
        """Whether timing took as long as loading, or further turns would tell nothing new."""
        return self.seconds >= sum(network.seconds for network in loaded) or len(self.bursts[0]) >= _MOST_TURNS

    def ratios(self, quick: tuple[float, float] | None) -> list[float]:
        """How many times as long the other takes, wherever none was slowed down; everywhere, if ``quick`` is not said.

        Args:
            quick: what the original and the other take when nothing slows them down.
        """
        original, other = self.bursts
        if quick is None:
            return paired_ratios(other, original)
        return [] if self.slowed else quiet_ratios(other, original, quick[::-1])


@dataclass(frozen=True)
class Ruled:
    """A burst of the reference, in ms, and how many times slower than undisturbed the device was said to be."""

    took: float
    slower: float


@dataclass(frozen=True)
class Beside:
    """A burst of a network between two of the reference, in ms."""

    took: float
    before: float
    after: float


def _slow_ms(ruled: Sequence[Ruled]) -> float:
    """What the reference takes at most where nothing slows it down."""
    quiet = [each.took for each in ruled if each.slower <= SLOWED]
    return SLOWED * quick_ms(quiet or [each.took for each in ruled])


def _ratios(found: Sequence[Beside], slow_ms: float) -> list[float]:
    """How many times as long as the reference a network takes where that was not slowed down; everywhere, if that
    leaves too little."""
    quiet = [each for each in found if max(each.before, each.after) <= slow_ms]
    return [2 * each.took / (each.before + each.after) for each in (quiet if len(quiet) >= LEAST_QUIET else found)]


def _certain(ruled: Sequence[Ruled], networks: Collection[Sequence[Beside]], *, patient: bool) -> bool:
    """Whether networks are known well enough on average; ``patient``: each from enough that nothing slowed down."""
    slow = _slow_ms(ruled)
    quiet = [sum(max(each.before, each.after) <= slow for each in found) for found in networks]
    if patient and (all(each.slower > SLOWED for each in ruled) or any(count < LEAST_QUIET for count in quiet)):
        return False
    return bool(np.mean([_uncertainty(_ratios(found, slow)) for found in networks] or [0.0]) <= _CERTAIN)


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


def _on_device(turns: Sequence[Turns], *, by_load: bool, patient: bool) -> OnDevice | None:
    """What is known after these turns; None if they are too few. By load, each load counts once.

    Without patience, what was slowed down is taken into account, too, if there is too little else.
    """
    originals, others = ([value for turn in turns for value in turn.bursts[side]] for side in (0, 1))
    same = len(set(originals)) == len(set(others)) == 1
    least = _SAME_ROUNDS if same else _LEAST_ROUNDS
    quick = quick_ms(originals), quick_ms(others)
    ratios = _each(turns, quick, by_load)
    if len(ratios) < least and (same or not patient):
        ratios, quick = _each(turns, None, by_load), (max(originals), max(others))
    if len(ratios) < least:
        return None
    found = middle_ratio(ratios)
    middle = median(value for value in originals if value <= SLOWED * quick[0])
    return OnDevice(middle, middle * found.value, found.value, (found.high - found.low) / 2 / found.value)


def _each(turns: Sequence[Turns], quick: tuple[float, float] | None, by_load: bool) -> list[float]:
    """Ratios of all turns; by load, their median within each."""
    found = [turn.ratios(quick) for turn in turns]
    return [median(ratios) for ratios in found if ratios] if by_load else [r for ratios in found for r in ratios]


def _settled(found: OnDevice, limit: Limit | None) -> bool:
    """Whether a network is clearly over its limit, clearly under what it should take, or clearly between the two."""
    if limit is None:
        return False
    used = found.compressed_ms / limit.of(found.original_ms)
    if abs(used - 1.0) > _FAR + 2 * found.margin:
        return True
    return found.margin <= _SIDED and all(abs(used - edge) > _AWAY * found.margin for edge in (1.0, 1.0 - limit.slack))


def _uncertainty(ratios: Sequence[float]) -> float:
    """By what fraction the median may be off, going by the spread of the middle half."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float((high - low) / middle / np.sqrt(len(ratios)))
