"""A target that a latency budget holds on: its table, the prediction for one model, and the device's own word."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from compressor.costs.latency import Latency
from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.latency.calibrate import calibrate, model_key
from compressor.latency.predict import Coefficients, Lookup, multiples
from compressor.latency.profile import Profiled, known_surfaces, open_timer, profile, target_of
from compressor.latency.subnets import Subnets, random_choices
from lut import Calibration, LatencyTable
from profilers.base import Runtime
from profilers.layer_timer import LAYER_TARGETS
from profilers.stats import quiet_ms


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
        if found.name not in LAYER_TARGETS:
            raise UsageError(
                f"A latency budget cannot be held on {found.name}, which takes no single operators; choose "
                f"{', '.join(LAYER_TARGETS)}."
            )
        require(found)
        return found


@dataclass(frozen=True)
class OnDevice:
    """Two networks timed in turn: milliseconds of a run that nothing disturbed, and their ratio round by round."""

    original_ms: float
    compressed_ms: float
    ratio: float


@dataclass
class Prediction:
    """What is known about predictions for one model on one target.

    Attributes:
        held_out: errors on networks that were not fitted: ``mean_error``, ``worst_error``, ``kendall_tau`` and how many
            ``networks``.
        estimated: signatures the runtime refused, whose latency is a guess from their work.
        measured, known: points timed for this model, and taken from the table.
    """

    target: str
    table: str
    held_out: dict[str, float] = field(default_factory=dict)
    estimated: list[str] = field(default_factory=list)
    measured: int = 0
    known: int = 0
    noise: str | None = None


class LatencySession:
    """Profiles and calibrates a model on a target, predicts, and checks on the device.

    Raises:
        ProfilerError: the target is not available, or refuses the model.
        LutError: the table cannot be used.
        ExporterError: the model cannot be exported.

    Attributes:
        term: the cost term, calibrated.
        prediction: how far to trust it, for the report.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        example_inputs: Any,
        settings: TargetSettings,
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        runtime = settings.runtime()
        self.settings, self.graph = settings, graph
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            table = stack.enter_context(LatencyTable(settings.lut))
            self.timer = stack.enter_context(open_timer(runtime, table, threads=settings.threads))
            self.target = target_of(self.timer.info)

            def told(done: int, total: int, _: str) -> None:
                if progress is not None:
                    progress("profile", done, total)

            found = profile(
                graph,
                table,
                self.timer,
                max_points=settings.max_points,
                seconds=settings.profile_seconds,
                progress=told,
            )
            lookup = Lookup(graph, known_surfaces(table, self.target, graph))
            self.term = Latency(graph, lookup)
            self.subnets = Subnets(model, graph, example_inputs, self._folder)
            calibration = self._calibration(table, found, progress)
            self.term.coefficients = Coefficients.from_json(calibration.coefficients)
            self.prediction = Prediction(
                self.target.label,
                str(table.path),
                dict(calibration.held_out),
                lookup.estimated,
                found.measured,
                found.known,
                found.noise,
            )
            self._stack = stack.pop_all()

    def _calibration(
        self, table: LatencyTable, found: Profiled, progress: Callable[[str, int, int], None] | None
    ) -> Calibration:
        """The table's, if it is still about the same points; else a new one."""
        key = model_key(self.graph)
        known = table.calibrations(self.target).get(key)
        if known is not None and not found.measured and known.details.get("subnets") == self.settings.subnets:
            return known
        made = calibrate(
            self.term,
            self.timer,
            self.subnets.write,
            self.subnets.original,
            random_choices(self.graph, self.settings.subnets),
            held_out=self.settings.subnets // 3,
            progress=None if progress is None else lambda done, total: progress("calibrate", done, total),
        )
        made.details["subnets"] = self.settings.subnets
        table.put_calibration(self.target, key, made)
        return made

    def multiples(self) -> dict[str, int]:
        """Widths the device likes, by group."""
        return multiples(self.graph, self.term.lookup)

    def compare(self, compressed: nn.Module, *, rounds: int = 9, burst_ms: float = 150.0) -> OnDevice:
        """Export a network and time it in turn with the original.

        Raises:
            ExporterError: it cannot be exported. RefusedError: the runtime cannot run it.
        """
        from exporters.onnx import OnnxExporter

        path = self._folder / "compressed.onnx"
        OnnxExporter().export(compressed.eval(), self.subnets.example, path, check=False)
        runners = [
            self.timer.runtime.load(file, threads=self.timer.threads, batch=self.timer.batch)
            for file in (self.subnets.original, path)
        ]
        try:
            runs = [int(min(200, max(3, burst_ms / max(quiet_ms(runner.measure(3)), 1e-3)))) for runner in runners]
            found: list[list[float]] = [[], []]
            for _ in range(rounds):
                for values, runner, count in zip(found, runners, runs, strict=True):
                    values.append(quiet_ms(runner.measure(count + 1).after(1)))
        finally:
            for runner in runners:
                runner.close()
        ratio = median(b / a for a, b in zip(*found, strict=True))
        original = median(found[0])
        return OnDevice(original, original * ratio, ratio)

    def close(self) -> None:
        """Give back the table, the runtime and the files."""
        self._stack.close()
