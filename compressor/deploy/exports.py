"""The files of a network: which formats can be written here, and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compressor.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import ExportInfo, Inputs

    Model: TypeAlias = nn.Module | str | Path


def require_formats(formats: Sequence[str]) -> None:
    """Raise now, not after hours of search, for a format that is unknown or not installed."""
    from exporters import registry

    for name in formats:
        found = registry.get(name).is_available()
        if not found:
            raise MissingDependencyError(f"The format {name} cannot be written here: {found.reason}")


def export_all(
    model: nn.Module,
    example_inputs: Inputs,
    folder: str | Path,
    formats: Sequence[str],
    *,
    stem: str = "model",
    **options: Any,
) -> list[ExportInfo]:
    """Write ``model`` into ``folder`` in every format, ONNX first because others start from it.

    Args:
        example_inputs: a tensor, a tuple of arguments, or an ``exporters.example.Example`` with keyword arguments.
        options: go to every exporter that knows them.

    Raises:
        UsageError: an open axis or an operator set was asked for, and a format has none.
    """
    import inspect

    from exporters import registry

    require_formats(formats)
    written: list[ExportInfo] = []
    onnx_path: Path | None = None
    for name in sorted(formats, key=lambda name: name != "onnx"):
        exporter = registry.get(name)
        known = inspect.signature(exporter.export).parameters
        for option, words in (("opset_version", "ONNX opset"), ("dynamic_axes", "open axes beside the batch")):
            if options.get(option) not in (None, "auto") and option not in known:
                raise UsageError(f"The format {name} has no {words}; leave that out, or choose another format.")
        given = {key: value for key, value in options.items() if key in known}
        if onnx_path is not None and "onnx_path" in known:
            given["onnx_path"] = onnx_path
        info = exporter.export(model, example_inputs, Path(folder) / f"{stem}{exporter.suffix}", **given)
        if name == "onnx":
            onnx_path = info.path
        written.append(info)
    return written
