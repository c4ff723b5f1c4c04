"""Who times operators and whole networks for a latency table: this machine, or another that is asked to.

What needs many looks at a clock in a row (an operator between looks at the reference, networks in turn) is one call of
a :class:`Timer`, so that on another machine nothing lies between the looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias, runtime_checkable

from exporters.base import Inputs
from lut import Measurement, Signature, Target
from profilers.base import RunnerInfo, Runtime
from profilers.in_turn import Limit, OnDevice, Timed
from profilers.interleave import Comparison
from profilers.layers.layer_timer import LAYER_TARGETS, LayerTimer

Model: TypeAlias = object
"""A module, or the path of a file."""


class Timer(Protocol):
    """Times on one runtime with one number of threads and one batch size. See :class:`LayerTimer`.

    ``reference_ms`` is what the reference takes undisturbed, the unit of all times; it may be set.
    """

    reference_ms: float

    @property
    def place(self) -> str:
        """Where it times, as messages name it at their beginning: ``THIS_MACHINE``, or a device by its name."""

    @property
    def info(self) -> RunnerInfo:
        """The conditions of the reference."""

    @property
    def target(self) -> Target:
        """Where its times belong in a latency table."""

    def faster_ms(self) -> float | None:
        """What the reference took lately, if that is clearly less than ``reference_ms``."""

    def busy(self) -> bool:
        """Whether other work on the machine disturbs timings now."""

    def measure(self, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        """Time one point. Raises ``DeviceLostError`` if the device is gone."""

    def time_networks(
        self,
        paths: Mapping[str, Path],
        reference: Path,
        *,
        reference_ms: float | None = None,
        rounds: int = 5,
        progress: Callable[[int, int], None] | None = None,
    ) -> Timed:
        """See :func:`profilers.in_turn.time_networks`."""

    def time_pair(
        self, original: Path, other: Path, *, limit: Limit | None = None, seconds: float = 45.0, sure: float = 0.004
    ) -> OnDevice:
        """See :func:`profilers.in_turn.time_pair`."""

    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Timer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class RemoteRuntime(Protocol):
    """A runtime on another machine, by that machine's name. It is a ``profilers.base.Runtime``, too.

    ``runs`` is the registered name of the runtime there.
    """

    name: str
    runs: str

    def open_timer(self, *, threads: int | None, batch: int) -> Timer:
        """A timer there. Raises ``ProfilerError``."""

    def interleave(
        self,
        models: Mapping[str, tuple[Model, Inputs | None]],
        *,
        threads: int | None,
        batch: int | None,
        seconds: float,
    ) -> Comparison:
        """See :func:`profilers.interleave.interleave`; modules are sent as ONNX files."""

    def measured(self, target: Target) -> bool:
        """Whether a target of a latency table is this device and runtime."""


def takes_operators(runtime: Runtime) -> bool:
    """Whether a runtime can be given single operators, so that a latency budget can be held on it."""
    return (runtime.runs if isinstance(runtime, RemoteRuntime) else runtime.name) in LAYER_TARGETS


def open_timer(runtime: Runtime, *, threads: int | None = None, batch: int = 1) -> Timer:
    """A timer where the runtime is.

    Raises:
        TargetUnavailableError: the runtime is not available.
        ProfilerUsageError: it cannot be given single operators.
    """
    if isinstance(runtime, RemoteRuntime):
        return runtime.open_timer(threads=threads, batch=batch)
    return LayerTimer(runtime, threads=threads, batch=batch)
