"""Writing a traced model with open axes; with those of the example, if the model or the format refuses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.axes import AUTO, Axes
from exporters.base import ExportCheck
from exporters.check import Run, check_all, free_axes, sizes_that_run
from exporters.errors import ExportCheckError, UnsupportedExportError
from exporters.example import Example
from exporters.files import staged
from exporters.inputs import batch_axes
from exporters.quiet import first_line, quiet

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Comparison:
    """How a file is compared with PyTorch before it is published; ``run`` makes what runs it from its path."""

    run: Callable[[Path], Run]
    batches: Sequence[int]
    tolerance: float
    seed: int
    what: str


@dataclass(frozen=True)
class Written:
    """What ``write`` says of a file: its operator set where there is one, and the axes beside the batch left open."""

    opset: int | None
    opened: Axes


@dataclass(frozen=True)
class Traced:
    """What was written: ``files`` are names beside the path."""

    files: tuple[str, ...]
    dynamic: bool
    written: Written
    checks: tuple[ExportCheck, ...]
    notes: tuple[str, ...]


Write = Callable[[Path, bool, Axes], Written]


def write_traced(
    model: nn.Module,
    example: Example,
    path: Path,
    write: Write,
    comparison: Comparison | None,
    *,
    dynamic_batch: bool,
    axes: Axes,
) -> Traced:
    """Write and compare; where that fails with open axes, again with fewer of them.

    Axes that the user named stay open, or the export fails.

    Args:
        write: writes the model to a path, with a dynamic batch axis or without, and with these axes open.
        comparison: ``None`` leaves the file unchecked.

    Raises:
        UnsupportedExportError: the model cannot be traced. ExportCheckError: the file computes something else.
    """
    closed: Axes = tuple({} for _ in axes)
    automatic = any(label == AUTO for opened in axes for label in opened.values())
    failure = ""

    def batched() -> Iterator[Axes]:
        yield axes
        if automatic:  # a tracer leaves axes open that the forward does not
            free = free_axes(model, example, axes)
            if any(free) and free != axes:
                yield free
            yield closed

    if dynamic_batch and any(batch_axes(example.tensors)):
        for wanted in batched():
            notes = [f"No axis but the batch is open: {failure}"] if failure and not any(wanted) else []
            try:
                return attempt(model, example, path, write, comparison, True, wanted, notes)
            except (UnsupportedExportError, ExportCheckError) as error:
                failure = first_line(error)
    notes = [f"The batch axis is fixed at {example.tensors[0].shape[0]}: {failure}"] if failure else []
    return attempt(model, example, path, write, comparison, False, closed if automatic else axes, notes)


def attempt(
    model: nn.Module,
    example: Example,
    path: Path,
    write: Write,
    comparison: Comparison | None,
    dynamic: bool,
    axes: Axes,
    notes: Sequence[str],
) -> Traced:
    """Write and compare once, with these axes open. Arguments, and what is raised, are those of ``write_traced``."""
    checks: tuple[ExportCheck, ...] = ()
    with staged(path) as staging, quiet():
        written = write(staging, dynamic, axes)
        missing = [
            label
            for wanted, opened in zip(axes, written.opened, strict=True)
            for axis, label in wanted.items()
            if label != AUTO and axis not in opened
        ]
        if missing:
            raise UnsupportedExportError(
                f"{type(model).__name__} has the size of {', '.join(dict.fromkeys(missing))} built in, so the axis "
                "cannot be left open; ask for other axes, or change the forward."
            )
        files = tuple(sorted(file.name for file in staging.parent.iterdir()))
        if comparison is not None:
            checks = check_all(
                model,
                example,
                comparison.run(staging),
                batches=list(comparison.batches) if dynamic else [None],
                tolerance=comparison.tolerance,
                seed=comparison.seed,
                what=comparison.what,
                opened=written.opened,
            )
        elif any(label == AUTO for opened in axes for label in opened.values()) and any(written.opened):
            sizes_that_run(model, example, None, written.opened)
    return Traced(files, dynamic, written, checks, tuple(notes))
