"""A runtime as a slower device would show it: for tests that need two devices and have one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profilers.base import Availability, Runner, RunnerInfo, Runtime, Samples
from profilers.kernels import KernelRuntime, KernelTimes


class Slowed:
    """Every time ``factor`` times as long as ``runtime`` takes."""

    def __init__(self, runtime: Runtime, factor: float) -> None:
        self.name, self.runtime, self.factor = runtime.name, runtime, factor

    def is_available(self) -> Availability:
        """As the runtime says."""
        return self.runtime.is_available()

    def load(self, model: Any, example_inputs: Any = None, **how: Any) -> Runner:
        """See :meth:`profilers.base.Runtime.load`."""
        return _SlowedRunner(self.runtime.load(model, example_inputs, **how), self.factor)


class SlowedKernels(Slowed):
    """The same of a runtime that can tell the time of each kernel."""

    def kernels(self, path: Path, *, threads: int, batch: int, runs: int, seed: int = 0) -> KernelTimes:
        """See :meth:`profilers.kernels.KernelRuntime.kernels`."""
        assert isinstance(self.runtime, KernelRuntime)
        found = self.runtime.kernels(path, threads=threads, batch=batch, runs=runs, seed=seed)
        return {name: [self.factor * value for value in values] for name, values in found.items()}


def slowed(runtime: Runtime, factor: float) -> Runtime:
    """``runtime``, slower."""
    return (SlowedKernels if isinstance(runtime, KernelRuntime) else Slowed)(runtime, factor)


class _SlowedRunner:
    def __init__(self, runner: Runner, factor: float) -> None:
        self._runner, self._factor = runner, factor

    @property
    def info(self) -> RunnerInfo:
        return self._runner.info

    def run(self) -> None:
        self._runner.run()

    def measure(self, runs: int) -> Samples:
        taken = vars(self._runner.measure(runs))
        times = {
            name: [self._factor * value for value in values] for name, values in taken.items() if name != "waiting"
        }
        return Samples(**times, waiting=taken["waiting"])

    def close(self) -> None:
        self._runner.close()
