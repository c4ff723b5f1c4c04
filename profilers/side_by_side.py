"""Models of any kind timed in turn on one runtime, here or on another machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.base import Inputs
from profilers.base import Runtime
from profilers.interleave import CHEAP_LOAD_S, Comparison, interleave, pooled
from profilers.layers.timer import RemoteRuntime

if TYPE_CHECKING:
    from torch import nn

#: Times that networks are loaded at least, and seconds of timing after which they are loaded anew.
_LOADS, _LOAD_SECONDS = 9, 0.5


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

    They are loaded anew some times over, see :func:`profilers.interleave.pooled`; what takes long to load, such as an
    engine that is built, is loaded once.

    Raises:
        ProfilerError: the runtime is not available, or refuses a model.
    """
    if isinstance(runtime, RemoteRuntime):
        found = runtime.interleave(models, threads=threads, batch=batch, seconds=seconds)
        if progress is not None:
            progress(1.0)
        return found
    parts: list[Comparison] = []
    spent = 0.0

    def told(done: float) -> None:
        if progress is not None:
            progress(min(1.0, (spent + done * share) / seconds))

    while not parts or spent < seconds:
        with ExitStack() as stack:
            started = time.perf_counter()
            runners = {}
            for label, (model, inputs) in models.items():
                runners[label] = runtime.load(model, inputs, threads=threads, batch=batch)
                stack.callback(runners[label].close)
            cheap = time.perf_counter() - started <= CHEAP_LOAD_S * len(models)
            share = min(seconds / _LOADS, _LOAD_SECONDS, seconds - spent) if cheap and seconds > 0 else seconds - spent
            parts.append(interleave(runners, seconds=share, progress=told))
            infos = {label: runner.info for label, runner in runners.items()}
        spent += parts[-1].seconds
        if not cheap:
            break
    return pooled(parts, infos)
