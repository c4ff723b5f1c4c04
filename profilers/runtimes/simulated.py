"""A device that exists only as a formula, so that everything above it can be tested exactly and without waiting.

A convolution or matrix product costs its multiply-adds with channels rounded up to whole steps, over a fixed rate, plus
a fixed cost per call: the staircase that real devices show. Everything else is free.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers.base import Availability, Runner, RunnerInfo, Samples
from profilers.errors import ProfilerUsageError
from profilers.runtimes.simulated_work import Product

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs


class SimulatedDevice:
    """See the module's documentation.

    Args:
        step_in, step_out: widths of the stairs over channels in and out.
        macs_per_ms: multiply-adds per millisecond.
        call_ms: cost of a call.
        noise: standard deviation of a run, relative; drawn from a seeded generator.
        drift_per_s: relative slow-down per second of simulated time.
        device: what it is called; devices that differ must be called differently.
    """

    name = "simulated"

    def __init__(
        self,
        *,
        step_in: int = 4,
        step_out: int = 8,
        macs_per_ms: float = 1e7,
        call_ms: float = 0.01,
        noise: float = 0.0,
        drift_per_s: float = 0.0,
        seed: int = 0,
        device: str = "simulated staircase",
    ) -> None:
        self.step_in, self.step_out = step_in, step_out
        self.macs_per_ms, self.call_ms = macs_per_ms, call_ms
        self.noise, self.drift_per_s = noise, drift_per_s
        self.now_ms = 0.0
        self.device = device
        self._random = random.Random(seed)
        self._files: dict[tuple[object, ...], tuple[int, list[Product]]] = {}

    def is_available(self) -> Availability:
        """Always."""
        return Availability(True, "for tests: a formula, not a device")

    def cost_ms(self, work: Product) -> float:
        """Time of one product on this device, without noise."""
        wide_in = math.ceil(work.channels_in / self.step_in) * self.step_in
        wide_out = math.ceil(work.channels_out / self.step_out) * self.step_out
        macs = wide_in * wide_out * work.kernel * work.groups * work.positions
        return self.call_ms + macs / self.macs_per_ms

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`. Modules and ONNX files of the same network cost the same."""
        if options:
            raise ProfilerUsageError(f"{self.name} has no option {', '.join(sorted(options))}.")
        if isinstance(model, (str, Path)):
            size, works = self._read(Path(model), example_inputs, batch)
        else:
            if example_inputs is None:
                raise ProfilerUsageError("A module needs example_inputs; pass a tensor or a tuple of tensors.")
            from profilers.runtimes.simulated_module import module_work

            size, works = module_work(model, example_inputs, batch)
        info = RunnerInfo(self.name, "1", self.device, "fp32", threads or 1, size)
        return _SimulatedRunner(self, info, sum(self.cost_ms(work) for work in works))

    def _read(self, path: Path, example_inputs: Inputs | None, batch: int | None) -> tuple[int, list[Product]]:
        """:func:`onnx_work`, once for every file: networks that are timed are loaded again and again."""
        from profilers.runtimes.simulated_work import onnx_work

        if example_inputs is not None or not path.is_file():  # which says what is wrong with it
            return onnx_work(path, example_inputs, batch)
        status = path.stat()
        key = path.resolve(), status.st_mtime_ns, status.st_size, batch
        if key not in self._files:
            self._files[key] = onnx_work(path, None, batch)
        return self._files[key]

    def tick(self, latency_ms: float) -> float:
        """Let ``latency_ms`` of work pass on the device's own clock; returns what it took with drift and noise."""
        factor = 1.0 + self.drift_per_s * self.now_ms / 1e3
        if self.noise:
            factor *= max(0.05, self._random.gauss(1.0, self.noise))
        taken = latency_ms * factor
        self.now_ms += taken
        return taken


class _SimulatedRunner:
    def __init__(self, device: SimulatedDevice, info: RunnerInfo, latency_ms: float) -> None:
        self._device, self._info, self._latency_ms = device, info, latency_ms

    @property
    def info(self) -> RunnerInfo:
        return self._info

    def run(self) -> None:
        self._device.tick(self._latency_ms)

    def measure(self, runs: int) -> Samples:
        return Samples([self._device.tick(self._latency_ms) for _ in range(runs)])

    def close(self) -> None:
        pass
