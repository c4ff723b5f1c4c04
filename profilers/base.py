"""What a runtime is, and the records that timing produces. Imports nothing heavy."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from exporters.base import Availability, Inputs, package_availability, package_version
from profilers.contention import Contention
from profilers.errors import ProfilerUsageError, TargetUnavailableError

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Availability",
    "Inputs",
    "Runner",
    "RunnerInfo",
    "Runtime",
    "Samples",
    "Timing",
    "WallClockRunner",
    "default_threads",
    "package_availability",
    "package_version",
    "require",
]


@dataclass(frozen=True)
class RunnerInfo:
    """Under what conditions a runner runs; part of every result.

    ``threads`` is 0 where it means nothing (a GPU), ``device`` names the hardware.
    """

    runtime: str
    version: str
    device: str
    precision: str
    threads: int
    batch: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return asdict(self)


@dataclass
class Samples:
    """Raw measurements of consecutive runs, in ms.

    ``latency_ms`` is the time from handing the input over to having the output. On a GPU ``enqueue_ms`` is the time the
    host needs to issue the work and ``compute_ms`` the time the device works; elsewhere both stay empty. ``cpu_ms`` is
    the processor time of runs on one CPU thread: what they would take if no other work had interrupted them.
    ``waiting`` is the share of the time that the threads of a CPU runtime waited for cores held by others.
    """

    latency_ms: list[float] = field(default_factory=list)
    enqueue_ms: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    @property
    def waited(self) -> float:
        """Mean share of the time that was waited for cores, 0 where that is not known."""
        return sum(self.waiting) / len(self.waiting) if self.waiting else 0.0

    def extend(self, other: Samples) -> None:
        """Append the measurements of ``other``."""
        self.latency_ms += other.latency_ms
        self.enqueue_ms += other.enqueue_ms
        self.compute_ms += other.compute_ms
        self.cpu_ms += other.cpu_ms
        self.waiting += other.waiting

    def after(self, count: int) -> Samples:
        """The same without the first ``count`` runs."""
        return Samples(*(values[count:] for values in vars(self).values()))


@dataclass(frozen=True)
class Timing:
    """Summary of the runs of one network. All ``_ms`` are milliseconds per run (per batch, not per sample).

    Attributes:
        repeats: number of runs measured; ``outliers`` of them lie above the third quartile by more than three
            interquartile ranges. They are counted, not removed.
        spread: interquartile range over median.
        throughput_per_s: samples per second at the median.
        enqueue_ms, compute_ms: medians of what :class:`Samples` holds, ``None`` where it holds nothing.
    """

    runtime: str
    version: str
    device: str
    precision: str
    threads: int
    batch: int
    repeats: int
    median_ms: float
    mean_ms: float
    min_ms: float
    p5_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    spread: float
    outliers: int
    throughput_per_s: float
    enqueue_ms: float | None = None
    compute_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return asdict(self)


@runtime_checkable
class Runner(Protocol):
    """One network, loaded and ready, with random inputs that are never zero."""

    @property
    def info(self) -> RunnerInfo:
        """The conditions it runs under."""

    def run(self) -> None:
        """Run once and wait for the result."""

    def measure(self, runs: int) -> Samples:
        """Run ``runs`` times in a row, timing each by the clock that is right for the device."""

    def close(self) -> None:
        """Give back the memory it holds."""


THIS_MACHINE = "This machine"
"""How messages name the place where something is timed here; another place has a name of its own."""


@runtime_checkable
class Runtime(Protocol):
    """A runtime of a device, such as ONNX Runtime on the CPU. Stateless."""

    name: str

    def is_available(self) -> Availability:
        """Whether it can run here; if not, what is missing."""

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        **options: Any,
    ) -> Runner:
        """Make a model ready to be timed.

        Args:
            model: a module, or a file this runtime can load.
            example_inputs: needed for a module; a file may know its own input shapes.
            threads: CPU threads; ``None`` takes every core this process may use.
            batch: batch size; ``None`` leaves the example's, or 1.

        Raises:
            TargetUnavailableError: :meth:`is_available` says no.
            ProfilerUsageError: the file does not fit the runtime, or example inputs are missing.
            RefusedError: the runtime cannot run the model.
        """


class WallClockRunner:
    """A runner whose call returns when the result is there, so that the wall clock is the right clock."""

    def __init__(self, info: RunnerInfo, call: Callable[[], object]) -> None:
        self._info = info
        self._call: Callable[[], object] | None = call

    @property
    def info(self) -> RunnerInfo:
        return self._info

    def run(self) -> None:
        self._live()()

    def measure(self, runs: int) -> Samples:
        call, clock, work_clock = self._live(), time.perf_counter_ns, time.process_time_ns
        alone = self._info.threads == 1
        times, worked = [], []
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a run would be charged to the network
        try:
            with Contention(self._info.threads) as contention:
                for _ in range(runs):
                    begun = work_clock() if alone else 0
                    started = clock()
                    call()
                    times.append((clock() - started) / 1e6)
                    if alone:
                        worked.append((work_clock() - begun) / 1e6)
        finally:
            if collecting:
                gc.enable()
        return Samples(times, cpu_ms=worked, waiting=[contention.share] * runs)

    def close(self) -> None:
        self._call = None

    def _live(self) -> Callable[[], object]:
        if self._call is None:
            raise ProfilerUsageError("This runner was closed; load the model again.")
        return self._call


def default_threads() -> int:
    """Cores this process may run on: affinity masks count, hyper-threads are not told apart."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def require(runtime: Runtime) -> None:
    """Raise :class:`TargetUnavailableError` if ``runtime`` cannot be used here."""
    found = runtime.is_available()
    if not found:
        raise TargetUnavailableError(f"The target {runtime.name} cannot be used here: {found.reason}")
