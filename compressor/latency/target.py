"""A target that a latency budget holds on: its table, the prediction for one model, and the device's own word."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from compressor.arrays import BoolArray, UnitMask
from compressor.budget import Budget
from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.latency.calibrate import TIMING_VERSION, calibrate, model_key, time_choices
from compressor.latency.predict import Coefficients, Lookup, multiples
from compressor.latency.profile import known_surfaces, open_timer, profile
from compressor.latency.refinement import SLACK
from compressor.latency.subnets import Maker, Subnet, Subnets, random_choices
from compressor.latency.term import Latency
from lut import Calibration, LatencyTable
from profilers.base import Runtime
from profilers.in_turn import Limit, OnDevice
from profilers.layers.layer_timer import LAYER_TARGETS
from profilers.layers.timer import takes_operators


@dataclass(frozen=True)
class TargetSettings:
    """Where and how latency is measured.

    Args:
        target: registered name, or a runtime object.
        lut: the table's file; ``None`` is the default place.
        threads: CPU threads; ``None`` takes every core this process may use.
        subnets: networks that predictions are calibrated with and tested on.
        profile_seconds: most seconds to spend on single operators; ``None`` takes what it needs.
    """

    target: str | Runtime
    lut: str | Path | None = None
    threads: int | None = None
    subnets: int = 14
    profile_seconds: float | None = None
    max_points: int = 24

    def runtime(self) -> Runtime:
        """The runtime. Raises ``ProfilerError`` if it is unknown or not available, ``UsageError`` if it will not do."""
        from profilers import registry
        from profilers.base import require

        found = registry.get(self.target) if isinstance(self.target, str) else self.target
        if not takes_operators(found):
            raise UsageError(
                f"A latency budget cannot be held on {found.name}, which takes no single operators; choose "
                f"{', '.join(LAYER_TARGETS)}."
            )
        require(found)
        return found


@dataclass
class Prediction:
    """What is known about predictions for one model on one target.

    Attributes:
        held_out: errors on networks that were not fitted: ``mean_error``, ``worst_error``, ``kendall_tau`` and how many
            ``networks``.
        estimated: signatures the runtime refused, whose latency is a guess from their work.
        unmeasured: signatures for which there was no time, guessed likewise.
        measured, known: points timed for this model, and taken from the table.
        set_aside: where a damaged table was moved.
    """

    target: str
    table: str
    held_out: dict[str, float] = field(default_factory=dict)
    estimated: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    measured: int = 0
    known: int = 0
    noise: str | None = None
    set_aside: str | None = None

    @property
    def warnings(self) -> list[str]:
        """What a user should know before trusting it."""
        found = [self.noise] if self.noise else []
        if self.set_aside:
            found.append(
                f"The latency table {self.table} was damaged; it was set aside as {self.set_aside}, and what was in it "
                "measured again ('compress lut merge' takes over what can still be read)."
            )
        if self.estimated:
            found.append(
                f"{self.target} would not run {_listed(self.estimated)}; their latency is estimated from their work."
            )
        if self.unmeasured:
            found.append(
                f"{_listed(self.unmeasured)} were not measured in the time given; their latency is estimated from "
                "their work. Run again, or 'compress profile', to measure them."
            )
        return found

    @property
    def summary(self) -> str:
        """How good it is, in one line."""
        return (
            f"Latency is predicted from {self.known + self.measured} points ({self.measured} of them new) with a "
            f"mean error of {self.held_out.get('mean_error', float('nan')):.1%} on held-out networks."
        )


def _listed(labels: list[str]) -> str:
    return f"{', '.join(labels[:4])}{' and others' if len(labels) > 4 else ''}"


class LatencySession:
    """Profiles and calibrates a model on a target, predicts, and checks on the device.

    Args:
        known: what ``to_json`` of an earlier session of the same model returned; if it is about this target, nothing
            is measured again.
        decides: components that a method decides on, ``None`` for all: what depends on none of them is measured as it
            is, and no other.
        make: makes alternatives of choices, see ``subnets.Subnets``; needed for a graph that has some.

    Raises:
        ProfilerError: the target is not available, or refuses the model.
        LutError: the table cannot be used.
        ExporterError: the model cannot be exported.

    Attributes:
        term: the cost term, calibrated.
        prediction: how far to trust it, for the report.
        original_ms: what the original took when the prediction was calibrated.
    """

    original_ms: float

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        example_inputs: Any,
        settings: TargetSettings,
        *,
        known: Mapping[str, Any] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        decides: frozenset[str] | None = None,
        make: Maker | None = None,
    ) -> None:
        runtime = settings.runtime()
        self.settings, self.graph, self.decides = settings, graph, decides
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            table = stack.enter_context(LatencyTable(settings.lut))
            self.timer = stack.enter_context(open_timer(runtime, table, threads=settings.threads))
            self.target = self.timer.target

            self.subnets = Subnets(model, graph, example_inputs, self._folder, make=make)
            unit = self.target.key, self.timer.reference_ms
            if known is not None and (known["target"], known.get("reference_ms")) == unit:
                lookup = Lookup(graph, known_surfaces(table, self.target, graph))
                self.term = Latency(graph, lookup, Coefficients.from_json(known["coefficients"]))
                self.prediction = Prediction(**known["prediction"])
                self.original_ms = known["original_ms"]
            else:
                self._measure(table, progress)
            self._stack = stack.pop_all()

    def to_json(self) -> dict[str, Any]:
        """What ``known`` takes, so that a job goes on with the same predictions: only the table must still be there."""
        return {
            "target": self.target.key,
            "reference_ms": self.timer.reference_ms,
            "coefficients": self.term.coefficients.to_json(),
            "prediction": asdict(self.prediction),
            "original_ms": self.original_ms,
        }

    def _measure(self, table: LatencyTable, progress: Callable[[str, int, int], None] | None) -> None:
        """Profile what the table lacks, and calibrate."""

        def told(done: int, total: int, _: str) -> None:
            if progress is not None:
                progress("profile", done, total)

        settings = self.settings
        found = profile(
            self.graph,
            table,
            self.timer,
            max_points=settings.max_points,
            seconds=settings.profile_seconds,
            progress=told,
            decides=self.decides,
        )
        lookup = Lookup(self.graph, known_surfaces(table, self.target, self.graph))
        self.term = Latency(self.graph, lookup)
        calibration = self._calibration(table, progress)
        self.original_ms = calibration.details["measured_ms"]["original"]
        self.prediction = Prediction(
            self.target.label,
            str(table.path),
            dict(calibration.held_out),
            [label for label in lookup.estimated if label not in found.unmeasured],
            [label for label in lookup.estimated if label in found.unmeasured],
            found.measured,
            found.known,
            found.noise,
            str(table.set_aside) if table.set_aside else None,
        )

    def _calibration(self, table: LatencyTable, progress: Callable[[str, int, int], None] | None) -> Calibration:
        """Fitted to timings of subnets: the table's if it has them, for these do not depend on its points.

        Those of a busy machine are taken anew once it is quiet.
        """
        key = model_key(self.graph, self.decides)
        choices = random_choices(self.graph, self.settings.subnets, decides=self.decides)
        known = table.calibrations(self.target).get(key)
        asked = {"subnets": self.settings.subnets, "version": TIMING_VERSION}
        fits = known is not None and asked.items() <= known.details.items()
        if known is not None and fits and (not known.details.get("busy") or self.timer.busy()):
            measured, busy = known.details["measured_ms"], bool(known.details.get("busy"))
        else:
            measured, busy = time_choices(
                self.timer,
                self.subnets.write,
                self.subnets.original,
                choices,
                progress=None if progress is None else lambda done, total: progress("calibrate", done, total),
            )
        made = calibrate(self.term, choices, measured, held_out=self.settings.subnets // 3)
        made.details.update(asked, busy=busy)
        if known is None or (known.coefficients, known.details) != (made.coefficients, made.details):
            table.put_calibration(self.target, key, made)
        return made

    def multiples(self) -> dict[str, int]:
        """Widths the device likes, by group."""
        return multiples(self.graph, self.term.lookup)

    def write(self, units: UnitMask, gates: BoolArray | None) -> Path:
        """The file of another network, cut from the original's where that does. Raises ``ExporterError``."""
        return self.subnets.write(Subnet(units, gates), "candidate")

    def export(self, model: nn.Module) -> Path:
        """The file of a trimmed network as users get it. Raises ``ExporterError``."""
        return self.subnets.export(model, "compressed")

    def compare(
        self,
        path: Path,
        budget: Budget | None = None,
        *,
        seconds: float = 45.0,
        sure: float = 0.004,
    ) -> OnDevice:
        """Time a file in turn with the original's, until the ratio is known to ``sure`` or time is up.

        Args:
            budget: if it is clear on which side of it the network is, less precision will do.

        Raises:
            RefusedError: the runtime cannot run it.
        """
        limit = None if budget is None else Limit(budget.value, budget.relative, SLACK)
        return self.timer.time_pair(self.subnets.original, path, limit=limit, seconds=seconds, sure=sure)

    def close(self) -> None:
        """Give back the table, the runtime and the files."""
        self._stack.close()
