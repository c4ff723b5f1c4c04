"""Models of any kind timed in turn on one runtime, here or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.base import Inputs
from profilers.base import Runtime
from profilers.interleave import Comparison, interleave
from profilers.layers.timer import RemoteRuntime

if TYPE_CHECKING:
    from torch import nn


def time_in_turn(
    runtime: Runtime,
    models: Mapping[str, tuple[nn.Module | str | Path, Inputs | None]],
    *,
    threads: int | None = None,
    batch: int | None = None,
    seconds: float = 10.0,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Load models with their example inputs and time them, the first as the baseline; see :func:`interleave`.

    Raises:
        ProfilerError: the runtime is not available, or refuses a model.
    """
    if isinstance(runtime, RemoteRuntime):
        found = runtime.interleave(models, threads=threads, batch=batch, seconds=seconds)
        if progress is not None:
            progress(1.0)
        return found
    with ExitStack() as stack:
        runners = {}
        for label, (model, inputs) in models.items():
            runners[label] = runtime.load(model, inputs, threads=threads, batch=batch)
            stack.callback(runners[label].close)
        return interleave(runners, seconds=seconds, progress=progress)
