"""``profile``: measure what a latency table lacks for a model.

Signatures take turns, one point each, so that a run that is stopped leaves all of them about equally well known, and
the drift of a machine does not fall on some alone. Every point is stored at once: whoever goes on later, here or in
another process, measures only what is missing. At the end new points that do not fit in with the others are measured
once more, because a neighbour that takes the caches for a second slows down all runs of one point alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from compressor.graph.graph import Graph
from compressor.latency.signatures import asked, domains
from lut import LatencyTable, Measurement, Point, Row, Signature, Target
from lut.surface.interpolate import usable
from lut.surface.refine import Domain, Refinement, Refiner
from lut.surface.steps import Pattern
from profilers.base import THIS_MACHINE, Runtime
from profilers.layers import timer as timers
from profilers.layers.layer_timer import REFERENCE, REFERENCE_CHANNELS
from profilers.layers.timer import Timer
from profilers.reference import FASTER, SLOW

#: Share of noisy points above which the machine is called too noisy.
NOISY_SHARE = 0.25
#: Fewer points than this say nothing about the machine.
LEAST_POINTS = 8
#: New points at least for a signature that the table knows only up to fewer channels.
WIDER_POINTS = 8
#: A point this far from what the others predict is measured again: something may have disturbed it, however steadily.
ODD = 0.1
#: At most this share of a signature's points.
ODD_SHARE = 0.25


@dataclass
class Profiled:
    """What ``profile`` did.

    Attributes:
        target: what was measured.
        refinements: per signature, points and what interpolation errs by.
        measured, known: points timed now, and found in the table.
        again: points among those that did not fit in and were timed twice.
        refused: signatures the runtime would not run at all, with its words.
        unmeasured: signatures for which there was no time.
        noisy: points whose runs disagreed; ``spread`` is the median relative spread of all points timed now.
        finished: ``False`` if time ran out.
        place: where, as messages name it.
    """

    target: Target
    refinements: dict[Signature, Refinement] = field(default_factory=dict)
    measured: int = 0
    known: int = 0
    again: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    unmeasured: list[str] = field(default_factory=list)
    noisy: int = 0
    spread: float = 0.0
    seconds: float = 0.0
    finished: bool = True
    place: str = THIS_MACHINE

    @property
    def noise(self) -> str | None:
        """One line if ``place`` was too noisy, else ``None``."""
        if self.measured < LEAST_POINTS or self.noisy <= NOISY_SHARE * self.measured:
            return None
        return (
            f"{self.place} is too noisy to measure well: {self.noisy} of {self.measured} points were disturbed "
            f"(typical spread {self.spread:.0%}). Stop other work and profile again; these points are measured anew."
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {
            "target": {"key": self.target.key, "label": self.target.label},
            "signatures": [
                {
                    "label": signature.label,
                    "points": len(found.points),
                    "refused": len(found.refused),
                    "error": None if math.isnan(found.error) else found.error,
                    "stopped": found.stopped,
                }
                for signature, found in self.refinements.items()
            ],
            "measured": self.measured,
            "known": self.known,
            "again": self.again,
            "refused": self.refused,
            "unmeasured": self.unmeasured,
            "noisy": self.noisy,
            "spread": self.spread,
            "noise": self.noise,
            "seconds": self.seconds,
            "finished": self.finished,
        }


def open_timer(runtime: Runtime, table: LatencyTable, *, threads: int | None, batch: int = 1) -> Timer:
    """A timer that speaks in the table's time, in which its reference takes what it takes undisturbed.

    A table that was begun on a busy machine is brought to that time, see ``LatencyTable.anchor``.
    """
    timer = timers.open_timer(runtime, threads=threads, batch=batch)
    _anchor(timer, table, timer.reference_ms)
    return timer


def _reference(timer: Timer, reference_ms: float) -> Row:
    """The table's anchor: its row of the reference."""
    channels = REFERENCE_CHANNELS, REFERENCE_CHANNELS
    return Row(timer.target, REFERENCE, *channels, Measurement(reference_ms, repeats=1))


def _anchor(timer: Timer, table: LatencyTable, found_ms: float) -> None:
    """Let table and timer agree on what the reference takes undisturbed: if ``found_ms`` is clearly less, that."""
    found = _reference(timer, found_ms)
    table.register(found.target)
    known = table.get(found.target, REFERENCE, (REFERENCE_CHANNELS, REFERENCE_CHANNELS))
    if known is None or known.median_ms is None or found_ms < (1.0 - FASTER) * known.median_ms:
        known = table.anchor(found, slow=SLOW).measurement
    timer.reference_ms = known.median_ms or found_ms


def profile(
    graph: Graph,
    table: LatencyTable,
    timer: Timer,
    *,
    tolerance: float = 0.03,
    max_points: int = 24,
    seconds: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    decides: frozenset[str] | None = None,
) -> Profiled:
    """Measure what the table lacks for every signature of a graph.

    Args:
        tolerance: mean relative error of interpolation to reach per signature.
        max_points: most points per signature, those in the table included.
        seconds: stop after this long; what was measured stays.
        progress: called with signatures done, all signatures and the label of the one in hand.
        decides: components that a method decides on, see ``signatures.asked``: operators whose channels stay take one
            point for each of their channel counts.

    Noisy points are measured anew, unless the machine is busy now. If the device turns out to be faster than it ever
    was while the table was made, the table is brought to that time, and what was timed under load measured again.

    Raises:
        LutError: the table cannot be written.
    """
    started = time.perf_counter()
    while True:
        left = None if seconds is None else max(0.0, seconds - (time.perf_counter() - started))
        try:
            found = _profile(graph, table, timer, tolerance, max_points, left, progress, decides)
        except _AnchorMovedError:
            continue
        found.seconds = time.perf_counter() - started
        return found


class _AnchorMovedError(Exception):
    """The table's times are in another unit now."""


def _profile(
    graph: Graph,
    table: LatencyTable,
    timer: Timer,
    tolerance: float,
    max_points: int,
    seconds: float | None,
    progress: Callable[[int, int, str], None] | None,
    decides: frozenset[str] | None,
) -> Profiled:
    started = time.perf_counter()
    target = timer.target
    result = Profiled(target, place=timer.place)
    wanted = asked(graph, decides)
    ranges = {signature: each.domain for signature, each in wanted.items()}
    only = {signature: tuple(each.points) for signature, each in wanted.items() if not each.varies}
    refiners: dict[Signature, Refiner] = {}
    leaders = _leaders({signature: domain for signature, domain in ranges.items() if signature not in only})
    patterns: dict[Family, tuple[Pattern, Pattern] | None] = {}
    spreads: list[float] = []
    complete: set[Signature] = set()
    fresh: set[tuple[Signature, Point]] = set()
    busy = timer.busy()

    def timed(signature: Signature, point: Point) -> Measurement:
        faster_ms = timer.faster_ms()
        if faster_ms is not None:
            _anchor(timer, table, faster_ms)
            raise _AnchorMovedError
        return timer.measure(signature, *point)

    def store(signature: Signature, point: Point, took: Measurement) -> None:
        if not table.put_anchored(Row(target, signature, *point, took), _reference(timer, timer.reference_ms)):
            _anchor(timer, table, timer.reference_ms)
            raise _AnchorMovedError

    def late() -> bool:
        return seconds is not None and time.perf_counter() - started >= seconds

    def start(signature: Signature, most: int) -> None:
        points = table.points(target, signature)
        good = {point: took.median_ms for point, took in points.items() if took.status == "ok" and took.median_ms}
        if busy:  # measured now, the noisy ones would be no better
            good = usable(points)
        refused = tuple(point for point, took in points.items() if took.status == "refused")
        result.known += len(good) + len(refused)
        domain = ranges[signature]
        if signature in only:
            each = only[signature]
            refiners[signature] = Refiner(domain, max_points=len(each), known=good, refused=refused, only=each)
            return
        # A narrower model may have left many points, and none where this one is wider.
        wide_enough = domain.point(domain.channels_in[1], domain.channels_out[1]) in {*good, *refused}
        if len(good) + len(refused) >= most and wide_enough:
            complete.add(signature)
        refiners[signature] = Refiner(
            domain,
            tolerance=tolerance,
            max_points=max(1 if wide_enough else WIDER_POINTS, most - len(good)),
            known=good,
            refused=refused,
            patterns=patterns.get(family_of(signature)),
        )

    def measure(chosen: list[Signature]) -> bool:
        """Take turns until none of them asks for more; ``False`` if time ran out."""
        waiting = [signature for signature in chosen if signature not in complete]
        while waiting:
            for signature in list(waiting):
                if late():
                    return False
                point = refiners[signature].next_point()
                if point is None:
                    waiting.remove(signature)
                    continue
                took = timed(signature, point)
                store(signature, point, took)
                fresh.add((signature, point))
                result.measured += 1
                spreads.append(took.spread)
                result.noisy += took.status == "noisy"
                refiners[signature].add(point, took.median_ms)
                if progress is not None:
                    progress(len(refiners) - len(waiting), len(ranges), signature.label)
        return True

    # Staircases belong to a kernel family: those found on one signature serve the rest, and save them the probing.
    for signature in leaders.values():
        start(signature, 2 * max_points)
    result.finished = measure(list(leaders.values()))
    for family, signature in leaders.items():
        patterns[family] = refiners[signature].result().patterns
    rest = [signature for signature in ranges if signature not in refiners]
    for signature in rest:
        start(signature, max_points)
    result.finished = result.finished and measure(rest)
    result.refinements = {signature: refiner.result() for signature, refiner in refiners.items()}
    for signature, refinement in result.refinements.items():
        for point, expected_ms in _odd(signature, refinement):
            if (signature, point) in fresh and result.finished and not late():
                result.again += 1
                took = timed(signature, point)
                if took.status == "ok" and _closer(took.median_ms, refinement.points[point], expected_ms):
                    store(signature, point, took)
    for signature in ranges:
        points = table.points(target, signature)
        if not points:
            result.unmeasured.append(signature.label)
        elif not usable(points):
            result.refused[signature.label] = next(iter(points.values())).error
    result.spread = sorted(spreads)[len(spreads) // 2] if spreads else 0.0
    return result


def _odd(signature: Signature, refinement: Refinement) -> list[tuple[Point, float]]:
    """Points that do not fit in with the others, and the latencies in ms that these predict there; the worst first."""
    points = refinement.points
    if len(points) < LEAST_POINTS:
        return []
    surplus = dict(zip(points, refinement.surface(signature.axes).estimate.surplus().tolist(), strict=True))
    worst = sorted((point for point in points if abs(surplus[point]) > ODD), key=lambda point: -abs(surplus[point]))
    return [(point, points[point] * math.exp(-surplus[point])) for point in worst[: int(len(points) * ODD_SHARE)]]


def _closer(one_ms: float | None, two_ms: float, expected_ms: float) -> bool:
    return one_ms is not None and abs(math.log(one_ms / expected_ms)) < abs(math.log(two_ms / expected_ms))


Family = tuple[str, bool, bool, bool]


def family_of(signature: Signature) -> Family:
    """Signatures that a runtime runs with the same kernels, as far as one can tell from outside."""
    pointwise = bool(signature.kernel) and max(signature.kernel) == 1
    return signature.kind, signature.depthwise, signature.groups > 1, pointwise


def _leaders(ranges: dict[Signature, Domain]) -> dict[Family, Signature]:
    """Of each family the signature with the widest range of channels."""
    found: dict[Family, Signature] = {}
    for signature, domain in ranges.items():
        family = family_of(signature)
        known = found.get(family)
        if known is None or _width(domain) > _width(ranges[known]):
            found[family] = signature
    return found


def _width(domain: Domain) -> int:
    return math.prod(high - low + 1 for low, high in (domain.channels_in, domain.channels_out))


def known_surfaces(table: LatencyTable, target: Target, graph: Graph) -> dict[Signature, dict[Point, float]]:
    """Points in ms of every signature of a graph that the table can answer for."""
    found = {}
    for signature in domains(graph):
        points = usable(table.points(target, signature))
        if points:
            found[signature] = points
    return found
