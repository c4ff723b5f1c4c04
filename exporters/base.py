"""The interface of a format, and the plain records that exporting produces. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from exporters.errors import MissingPackageError

if TYPE_CHECKING:
    from torch import nn

#: What ``example_inputs`` takes: a tensor, a tuple of arguments, or an ``exporters.example.Example`` of a whole call.
Inputs: TypeAlias = Any

#: Batch sizes on which an export is compared with PyTorch when its batch axis is dynamic.
CHECK_BATCHES = (1, 2, 5)

#: Largest accepted max|difference| / max|output| per precision. fp32 runtimes reorder sums, fuse and fold, which
#: costs a few units in the seventh digit per layer; fp16 keeps 11 bits of mantissa, bf16 8; int8 is calibrated, so
#: its error is the user's trade and the limit only catches a broken graph.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 5e-1}


#: Where an ONNX file with more open axes than the batch says at which sizes it was made.
EXAMPLE_SHAPES = "compressor.example_shapes"


@dataclass(frozen=True)
class Availability:
    """Whether something can be used on this machine, and if not, why and what to do."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True)
class ExportCheck:
    """One comparison of the exported file with PyTorch on random inputs of one batch size.

    ``rel_error`` is max|difference| / max|output|, taken per output, the worst one. ``max_abs_output`` is the largest
    output; where it is 0 (a last layer that starts at zero) the comparison says little.
    """

    batch: int
    max_abs_error: float
    rel_error: float
    max_abs_output: float


@dataclass(frozen=True)
class ExportInfo:
    """What was written and how it was checked.

    Attributes:
        format: registered name of the exporter.
        path: the main file; ``files`` lists every file written, ``path`` first.
        bytes: size of all files together.
        precision: "fp32", "fp16", "bf16" or "int8".
        dynamic_batch: whether the file accepts any batch size; if False, ``notes`` says why.
        checks: the comparisons made; empty when the runtime cannot run here, which ``notes`` then says.
        tolerance: limit the relative errors were held to.
        checked_with: runtime and version that made the checks, ``None`` without checks.
        details: what is particular to the format (layers of an engine, compute capability).
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    bytes: int
    precision: str = "fp32"
    dynamic_batch: bool = True
    checks: tuple[ExportCheck, ...] = ()
    tolerance: float | None = None
    checked_with: str | None = None
    opset_version: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def rel_error(self) -> float | None:
        """The worst relative error over all checks, ``None`` without checks."""
        return max((check.rel_error for check in self.checks), default=None)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary; paths become strings."""
        result = asdict(self)
        result.update(path=str(self.path), files=[str(file) for file in self.files], rel_error=self.rel_error)
        result.update(checks=[asdict(check) for check in self.checks], notes=list(self.notes))
        return result


@runtime_checkable
class Exporter(Protocol):
    """A deployment format.

    Exporters are stateless. ``export`` leaves the model as it found it (mode, device, weights), writes nothing unless
    every check passed, and replaces an existing file in one step.
    """

    name: str
    suffix: str

    def is_available(self) -> Availability:
        """Whether the packages the format needs are installed; imports no heavy package."""

    def export(self, model: nn.Module, example_inputs: Inputs, path: Path, **options: Any) -> ExportInfo:
        """Write ``model`` to ``path``.

        Raises:
            MissingPackageError: a package is not installed.
            UnsupportedExportError: the model cannot be expressed in this format.
            ExportCheckError: the file computes something else than the model.
        """


def package_availability(module: str, *, package: str, extra: str | None) -> Availability:
    """Whether ``module`` can be imported, without importing it."""
    if importlib.util.find_spec(module) is not None:
        return Availability(True)
    how = f"pip install 'compressor[{extra}]'" if extra else f"pip install {package}"
    return Availability(False, f"{package} is not installed; install it with: {how}")


def require(availability: Availability, what: str) -> None:
    """Raise :class:`MissingPackageError` for something that is not available."""
    if not availability:
        raise MissingPackageError(f"{what} cannot be used here: {availability.reason}")


def package_version(*distributions: str) -> str:
    """The version of the first of ``distributions`` that is installed, ``"unknown"`` if none is."""
    from importlib.metadata import PackageNotFoundError, version

    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
