"""Times single operators of a latency table on one runtime, against a reference that drift cancels out with.

A small reference convolution is timed before every operator, and every time is given as if the reference took what it
takes undisturbed (``reference_ms``). Times taken while the device was much slower than that, or while others held the
cores, are marked as noisy, however well they agree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from lut import Measurement, Signature, Target
from profilers.base import THIS_MACHINE, Runner, Runtime, default_threads, require
from profilers.contention import BUSY, Contention
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.in_turn import Limit, OnDevice, Timed, time_networks, time_pair
from profilers.kernels import KernelRuntime, quiet_total
from profilers.layers.layer_onnx import ANCHOR, layer_onnx
from profilers.layers.target import target_of
from profilers.moments import LEAST_QUIET, SLOWED
from profilers.reference import SLOW, Reference
from profilers.stats import quiet_ms

REFERENCE = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(28, 28), attributes=(("reference", True),))
REFERENCE_CHANNELS = 32
#: Bursts of an operator on several cores, each between two looks at the reference.
_TURNS = 5
#: Bursts at most, where the device is slowed down.
_MOST_TURNS = 15
#: Runtimes that load ONNX files, so that operators can be given to them one by one.
LAYER_TARGETS = ("onnxruntime-cpu", "onnxruntime-cuda", "openvino-cpu", "tensorrt", "tensorrt-rtx", "simulated")


class LayerTimer:
    """Measures points of a table, and whole networks, on this machine.

    Args:
        runtime: where. threads, batch: as for ``Runtime.load``.
        reference_ms: what the reference takes undisturbed, if that is known; ``None`` finds out.
        burst_ms: how long to run each operator.
        max_spread: relative spread above which a measurement is marked as noisy.

    Raises:
        TargetUnavailableError: the runtime is not available here.
        ProfilerUsageError: the runtime cannot be given single operators.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        threads: int | None = None,
        batch: int = 1,
        reference_ms: float | None = None,
        burst_ms: float = 30.0,
        max_spread: float = 0.15,
    ) -> None:
        require(runtime)
        if runtime.name not in LAYER_TARGETS:
            raise ProfilerUsageError(
                f"Single operators cannot be timed on {runtime.name}; choose one of {', '.join(LAYER_TARGETS)}."
            )
        self.runtime, self.batch = runtime, batch
        self.threads = threads or default_threads()
        self.burst_ms, self.max_spread = burst_ms, max_spread
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "layer.onnx"
        self._write(REFERENCE, REFERENCE_CHANNELS, REFERENCE_CHANNELS)
        self._loaded: Runner = runtime.load(self._path, threads=self.threads, batch=batch)
        self.info, self.place = self._loaded.info, THIS_MACHINE
        self.reference = Reference(self._loaded)
        if reference_ms is not None:
            self.reference_ms = reference_ms

    @property
    def reference_ms(self) -> float:
        """What the reference takes when nothing disturbs it: the unit of all times."""
        return self.reference.undisturbed_ms

    @reference_ms.setter
    def reference_ms(self, value: float) -> None:
        self.reference.undisturbed_ms = value

    @property
    def target(self) -> Target:
        """Where its times belong in a latency table."""
        return target_of(self.info)

    def faster_ms(self) -> float | None:
        """What the reference took lately, if that is clearly less than ``reference_ms``."""
        return self.reference.faster_ms()

    def drift(self) -> float:
        """How much slower the device is now than undisturbed, as a factor."""
        return self.reference.drift()

    def busy(self) -> bool:
        """Whether other work on the machine disturbs timings now."""
        return self.reference.busy()

    def measure(self, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        """Time one point. A runtime that will not run it gives a measurement with status "refused".

        Raises:
            DeviceLostError: the device stopped answering.
        """
        try:
            self._write(signature, channels_in, channels_out)
            value, spread, repeats, waited, drift = self._time()
        except RefusedError as error:
            # A device that is gone refuses everything: then this raises, and nothing false is recorded.
            self.reference.look()
            return Measurement.refused(str(error))
        except ProfilerUsageError as error:
            return Measurement.refused(str(error))
        disturbed = spread > self.max_spread or drift > SLOW or waited > BUSY
        return Measurement(max(value, 1e-6), spread=spread, repeats=repeats, status="noisy" if disturbed else "ok")

    def time_networks(
        self,
        paths: Mapping[str, Path],
        reference: Path,
        *,
        reference_ms: float | None = None,
        rounds: int = 5,
        progress: Callable[[int, int], None] | None = None,
    ) -> Timed:
        """See :func:`profilers.in_turn.time_networks`; times are those of an undisturbed device."""
        return time_networks(
            self.runtime,
            paths,
            reference,
            threads=self.threads,
            batch=self.batch,
            slower=self.reference.slower,
            reference_ms=reference_ms,
            rounds=rounds,
            progress=progress,
        )

    def time_pair(
        self, original: Path, other: Path, *, limit: Limit | None = None, seconds: float = 45.0, sure: float = 0.004
    ) -> OnDevice:
        """See :func:`profilers.in_turn.time_pair`."""
        return time_pair(
            self.runtime,
            original,
            other,
            threads=self.threads,
            batch=self.batch,
            slower=self.reference.slower,
            limit=limit,
            seconds=seconds,
            sure=sure,
        )

    def close(self) -> None:
        """Give back the reference and the files."""
        self._loaded.close()
        self._folder.cleanup()

    def __enter__(self) -> LayerTimer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, signature: Signature, channels_in: int, channels_out: int) -> None:
        anchors = isinstance(self.runtime, KernelRuntime)
        self._path.write_bytes(layer_onnx(signature, channels_in, channels_out, batch=self.batch, anchors=anchors))

    def _time(self) -> tuple[float, float, int, float, float]:
        """Milliseconds as if nothing disturbed, relative spread, runs, the share of the time that was waited for cores,
        and the drift."""
        drift = self.drift()
        if isinstance(self.runtime, KernelRuntime):
            few = self.runtime.kernels(self._path, threads=self.threads, batch=self.batch, runs=6)
            estimate, _ = quiet_total(few)
            runs = int(min(60, max(12, self.burst_ms / max(estimate, 1e-3))))
            with Contention(self.threads) as contention:
                times = self.runtime.kernels(self._path, threads=self.threads, batch=self.batch, runs=runs)
            total, spread = quiet_total(times, without=ANCHOR)
            return total / drift, spread, runs, contention.share, drift
        runner = self.runtime.load(self._path, threads=self.threads, batch=self.batch)
        try:
            first = runner.measure(3)
            runs = int(min(60, max(8, self.burst_ms / max(quiet_ms(first), 1e-3))))
            if runner.info.threads > 1 and not first.cpu_ms:
                return self._in_turn(runner, runs)
            samples = runner.measure(runs)
            values = samples.cpu_ms or samples.latency_ms
            tenth, half = sorted(values)[len(values) // 10], median(values)
            total = quiet_ms(samples)
            spread = (half - tenth) / 2 / total if total > 0 else 0.0
            return total / drift, spread, runs, samples.waited, drift
        finally:
            runner.close()

    def _in_turn(self, runner: Runner, runs: int) -> tuple[float, float, int, float, float]:
        """``_time`` of what runs on several cores, in turn with the reference.

        Where cores are lent (a virtual machine) or share a clock, several of them are faster at one moment and slower
        at the next, for a tenth of a second or so: what stands between two looks at the reference is divided by these.
        For seconds they may be one physical core, which slows operators down each in its own way: such bursts do not
        count, unless they are all there is.
        """
        took: list[float] = []
        drifts: list[float] = []
        waited = []
        before = self.reference.look()
        while len(took) < _TURNS or (len(took) < _MOST_TURNS and len(_quiet(took, drifts)) < LEAST_QUIET):
            samples = runner.measure(max(3, runs // _TURNS))
            after = self.reference.look()
            drifts.append((before + after) / 2 / self.reference_ms)
            took.append(quiet_ms(samples) / drifts[-1])
            waited.append(samples.waited)
            before = after
        kept = _quiet(took, drifts)
        kept = sorted(kept if len(kept) >= LEAST_QUIET else took)
        total = median(kept)
        low, high = (kept[1], kept[-2]) if len(kept) > LEAST_QUIET else (kept[0], kept[-1])
        spread = (high - low) / 2 / total if total > 0 else 0.0
        repeats = len(took) * max(3, runs // _TURNS)
        return total, spread, repeats, sum(waited) / len(waited), min(drifts)


def _quiet(took: Sequence[float], drifts: Sequence[float]) -> list[float]:
    """Those taken while the device was about as fast as undisturbed."""
    return [ms for ms, drift in zip(took, drifts, strict=True) if drift <= SLOWED]
