"""Writing a traced model with a dynamic batch axis; with that of the example, if the model or the format refuses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.base import Check
from exporters.check import Run, check_all
from exporters.errors import ExportCheckError, UnsupportedExportError
from exporters.files import staged
from exporters.inputs import batch_axes
from exporters.quiet import first_line, quiet

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Comparison:
    """How a file is compared with PyTorch before it is published; ``run`` makes what runs it from its path."""

    run: Callable[[Path], Run]
    batches: Sequence[int]
    tolerance: float
    seed: int
    what: str


@dataclass(frozen=True)
class Traced:
    """What was written: ``files`` are names beside the path, ``opset`` the operator set where there is one."""

    files: tuple[str, ...]
    dynamic: bool
    opset: int | None
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


def write_traced(
    model: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    write: Callable[[Path, bool], int | None],
    comparison: Comparison | None,
    *,
    dynamic_batch: bool,
) -> Traced:
    """Write and compare; if that fails with a dynamic batch axis, once more with the batch of the example.

    Args:
        write: writes the model to a path, with a dynamic batch axis or without; returns the operator set used.
        comparison: ``None`` leaves the file unchecked.

    Raises:
        UnsupportedExportError: the model cannot be traced. ExportCheckError: the file computes something else.
    """
    notes: tuple[str, ...] = ()
    if dynamic_batch and any(batch_axes(example)):
        try:
            return _attempt(model, example, path, write, comparison, True, notes)
        except (UnsupportedExportError, ExportCheckError) as error:
            notes = (f"The batch axis is fixed at {example[0].shape[0]}: {first_line(error)}",)
    return _attempt(model, example, path, write, comparison, False, notes)


def _attempt(
    model: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    write: Callable[[Path, bool], int | None],
    comparison: Comparison | None,
    dynamic: bool,
    notes: tuple[str, ...],
) -> Traced:
    checks: tuple[Check, ...] = ()
    with staged(path) as staging, quiet():
        opset = write(staging, dynamic)
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
            )
    return Traced(files, dynamic, opset, checks, notes)
