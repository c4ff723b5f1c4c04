"""Timing several networks against each other: in turn, in short bursts, so that drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from profilers.base import THIS_MACHINE, Runner, RunnerInfo, Samples, Timing
from profilers.errors import ProfilerUsageError
from profilers.moments import LEAST_QUIET, quick_ms, quiet_ratios
from profilers.stats import Ratio, middle_ratio, paired_ratio, paired_ratios, quiet_ms, summarise

#: Above this spread (interquartile range over median) a machine is too noisy to be believed.
MAX_SPREAD = 0.25
#: Networks slower than this get no run thrown away at the start of a burst: it would cost more than it cleans.
SETTLE_BELOW_MS = 200.0
MIN_ROUNDS = 3
#: A network that loads in this many seconds is loaded anew again and again.
CHEAP_LOAD_S = 0.3
#: Loads below which they give no interval.
LEAST_LOADS = 6
_SHORT_MS = 15.0


@dataclass(frozen=True)
class Comparison:
    """Networks timed in turn.

    Attributes:
        timings: by label, in the order given; the first is the baseline.
        ratios: latency over that of the baseline, for every label but the baseline.
        noise: ``None`` on a quiet machine, else one line that names the worst spread.
        rounds: bursts per network; ``seconds``: what measuring took, warm-up included.
    """

    timings: dict[str, Timing]
    ratios: dict[str, Ratio]
    noise: str | None
    rounds: int
    seconds: float
    bursts_ms: dict[str, list[float]] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict, repr=False)

    @property
    def baseline(self) -> str:
        """Label all others are compared with."""
        return next(iter(self.timings))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {
            "baseline": self.baseline,
            "timings": {label: timing.to_json() for label, timing in self.timings.items()},
            "ratios": {label: ratio.to_json() for label, ratio in self.ratios.items()},
            "noise": self.noise,
            "rounds": self.rounds,
            "seconds": self.seconds,
        }


def interleave(
    runners: Mapping[str, Runner],
    *,
    seconds: float = 10.0,
    burst_ms: float = 50.0,
    max_rounds: int = 200,
    max_spread: float = MAX_SPREAD,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Time ``runners`` in turn: A B A B ..., the first being the baseline.

    Each is warmed up until its runs stop being the first of their kind (a tenth of the time, at least two runs). Then
    every round gives each a burst of about ``burst_ms``, whose first run is thrown away because the other network's
    data is in the caches. At least three rounds are made, even if that takes longer than ``seconds``.

    Args:
        seconds: time budget for everything.
        max_spread: spread above which the machine is called too noisy.
        progress: called with the fraction done.

    Raises:
        ProfilerUsageError: no runner, or a time budget that is not positive.
    """
    if not runners:
        raise ProfilerUsageError("There is nothing to time; pass at least one network.")
    if not seconds > 0:
        raise ProfilerUsageError(f"The time budget must be above 0 s, not {seconds}.")
    started = clock()
    reported_ms = 0.0  # a simulated device does not wait, but its time counts

    def elapsed() -> float:
        return max(clock() - started, reported_ms / 1e3)

    estimates: dict[str, float] = {}
    for label, runner in runners.items():
        warm = _warm_up(runner, seconds * 0.1 / len(runners))
        estimates[label] = median(warm.latency_ms[len(warm.latency_ms) // 2 :])
        reported_ms += sum(warm.latency_ms)

    bursts = {label: _burst_runs(estimate, burst_ms) for label, estimate in estimates.items()}
    collected = {label: Samples() for label in runners}
    medians: dict[str, list[float]] = {label: [] for label in runners}
    rounds = 0
    round_seconds = 0.0
    while rounds < max_rounds and (rounds < MIN_ROUNDS or elapsed() + round_seconds <= seconds):
        before = elapsed()
        for label, runner in runners.items():
            settle, runs = bursts[label]
            samples = runner.measure(settle + runs)
            reported_ms += sum(samples.latency_ms)
            kept = samples.after(settle)
            collected[label].extend(kept)
            medians[label].append(median(kept.latency_ms))
        rounds += 1
        round_seconds = elapsed() - before
        if progress is not None:
            progress(min(1.0, max(elapsed() / seconds, rounds / max_rounds)))

    timings = {label: summarise(collected[label], runner.info) for label, runner in runners.items()}
    base, *others = runners
    return Comparison(
        timings=timings,
        ratios={label: _ratio(medians[label], medians[base]) for label in others},
        noise=_noise(timings, max_spread),
        rounds=rounds,
        seconds=elapsed(),
        bursts_ms=medians,
        samples=collected,
    )


def pooled(parts: Sequence[Comparison], infos: Mapping[str, RunnerInfo], max_spread: float = MAX_SPREAD) -> Comparison:
    """Comparisons of the same networks, each of which had loaded them anew, as one.

    Where a network comes to lie in memory makes it faster or slower for as long as it is loaded, so that with enough
    loads each counts once. What was timed while something slowed the device down does not count for ratios.
    """
    if len(parts) == 1:
        return parts[0]
    base, *others = infos
    samples = {label: Samples() for label in infos}
    for part in parts:
        for label, found in samples.items():
            found.extend(part.samples[label])
    bursts = {label: [value for part in parts for value in part.bursts_ms[label]] for label in infos}
    timings = {label: summarise(samples[label], info) for label, info in infos.items()}

    def ratio(label: str) -> Ratio:
        if len(parts) < LEAST_LOADS:
            return _ratio(bursts[label], bursts[base])
        quick = quick_ms(bursts[label]), quick_ms(bursts[base])
        each = [quiet_ratios(part.bursts_ms[label], part.bursts_ms[base], quick) for part in parts]
        if sum(map(bool, each)) < LEAST_LOADS:
            each = [paired_ratios(part.bursts_ms[label], part.bursts_ms[base]) for part in parts]
        return middle_ratio([median(ratios) for ratios in each if ratios])

    return Comparison(
        timings=timings,
        ratios={label: ratio(label) for label in others},
        noise=_noise(timings, max_spread),
        rounds=sum(part.rounds for part in parts),
        seconds=sum(part.seconds for part in parts),
        bursts_ms=bursts,
        samples=samples,
    )


def _ratio(bursts: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Of two networks timed in turn, from what nothing slowed down; from everything, if that leaves too little."""
    ratios = quiet_ratios(bursts, baseline, (quick_ms(bursts), quick_ms(baseline)))
    return middle_ratio(ratios) if len(ratios) >= LEAST_QUIET else paired_ratio(bursts, baseline)


def _warm_up(runner: Runner, seconds: float) -> Samples:
    """Run at least twice and for about ``seconds``."""
    warm = runner.measure(2)
    while sum(warm.latency_ms) < seconds * 1e3 and len(warm.latency_ms) < 1000:
        warm.extend(runner.measure(1))
    return warm


def runs_in_turn(runner: Runner, burst_ms: float = 100.0) -> int:
    """How many runs of a network to time before it is another's turn: about ``burst_ms``.

    On several cores 15 ms: where these are lent (a virtual machine) or share a clock, they are faster at one moment and
    slower at the next, and the two that are compared should meet the same moment.
    """
    samples = runner.measure(3)
    burst_ms = min(burst_ms, _SHORT_MS) if runner.info.threads > 1 and not samples.cpu_ms else burst_ms
    return int(min(200, max(2, burst_ms / max(quiet_ms(samples), 1e-3))))


def _burst_runs(estimate_ms: float, burst_ms: float) -> tuple[int, int]:
    """Runs to throw away and runs to keep in one burst."""
    runs = 1 if estimate_ms <= 0 else int(min(1000, max(1, burst_ms / estimate_ms)))
    return (1 if estimate_ms < SETTLE_BELOW_MS else 0), runs


def _noise(timings: Mapping[str, Timing], limit: float) -> str | None:
    label = max(timings, key=lambda name: timings[name].spread)
    spread = timings[label].spread
    if spread <= limit:
        return None
    return (
        f"{THIS_MACHINE} is too noisy to measure: the middle half of the runs of {label} spreads over "
        f"{spread:.0%} of the median (at most {limit:.0%} is trusted). Stop other work and measure again."
    )
