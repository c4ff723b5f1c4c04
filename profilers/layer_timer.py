"""Times single operators of a latency table on one runtime, against a reference that drift cancels out with.

Clocks, neighbours on a shared machine and heat change the speed of a device by several percent within minutes. So a
small reference convolution is timed before every operator, and every time is given as if the reference took what it
took when the table was begun (``reference_ms``).
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from statistics import median

from lut import Measurement, Signature
from profilers.base import Runner, Runtime, default_threads, require
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.kernels import KernelRuntime, quiet_total
from profilers.layer_onnx import ANCHOR, layer_onnx
from profilers.stats import quiet_ms

REFERENCE = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(28, 28), attributes=(("reference", True),))
REFERENCE_CHANNELS = 32
#: Runtimes that load ONNX files, so that operators can be given to them one by one.
LAYER_TARGETS = ("onnxruntime-cpu", "onnxruntime-cuda", "openvino-cpu", "tensorrt", "tensorrt-rtx", "simulated")


class LayerTimer:
    """Measures points of a table.

    Args:
        runtime: where. threads, batch: as for ``Runtime.load``.
        reference_ms: what the reference took when the table was begun; ``None`` begins one.
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
        self._reference: Runner = runtime.load(self._path, threads=self.threads, batch=batch)
        self.info = self._reference.info
        self._recent: deque[float] = deque(maxlen=5)
        for _ in range(self._recent.maxlen or 1):
            self._look()
        self.reference_ms = reference_ms if reference_ms is not None else median(self._recent)

    def drift(self) -> float:
        """How much slower the device is now than when the table was begun, as a factor."""
        self._look()
        return median(self._recent) / self.reference_ms

    def measure(self, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        """Time one point. A runtime that will not run it gives a measurement with status "refused".

        Raises:
            DeviceLostError: the device stopped answering.
        """
        drift = self.drift()
        try:
            self._write(signature, channels_in, channels_out)
            value, spread, repeats = self._time()
        except RefusedError as error:
            self._look()  # a device that is gone refuses everything: then this raises, and nothing false is recorded
            return Measurement.refused(str(error))
        except ProfilerUsageError as error:
            return Measurement.refused(str(error))
        return Measurement(
            max(value / drift, 1e-6),
            spread=spread,
            repeats=repeats,
            status="noisy" if spread > self.max_spread else "ok",
        )

    def close(self) -> None:
        """Give back the reference and the files."""
        self._reference.close()
        self._folder.cleanup()

    def __enter__(self) -> LayerTimer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> None:
        self._recent.append(quiet_ms(self._reference.measure(8).after(2)))

    def _write(self, signature: Signature, channels_in: int, channels_out: int) -> None:
        anchors = isinstance(self.runtime, KernelRuntime)
        self._path.write_bytes(layer_onnx(signature, channels_in, channels_out, batch=self.batch, anchors=anchors))

    def _time(self) -> tuple[float, float, int]:
        """Milliseconds, relative spread, runs."""
        if isinstance(self.runtime, KernelRuntime):
            few = self.runtime.kernels(self._path, threads=self.threads, batch=self.batch, runs=6)
            estimate, _ = quiet_total(few)
            runs = int(min(60, max(12, self.burst_ms / max(estimate, 1e-3))))
            times = self.runtime.kernels(self._path, threads=self.threads, batch=self.batch, runs=runs)
            total, spread = quiet_total(times, without=ANCHOR)
            return total, spread, runs
        runner = self.runtime.load(self._path, threads=self.threads, batch=self.batch)
        try:
            first = quiet_ms(runner.measure(3))
            runs = int(min(60, max(8, self.burst_ms / max(first, 1e-3))))
            samples = runner.measure(runs)
            values = samples.cpu_ms or samples.latency_ms
            tenth, half = sorted(values)[len(values) // 10], median(values)
            total = quiet_ms(samples)
            return total, (half - tenth) / 2 / total if total > 0 else 0.0, runs
        finally:
            runner.close()
