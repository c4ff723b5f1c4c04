"""Formats by name. Entries are ``"module:attr"`` strings, imported on first use; other packages add theirs through
the entry-point group ``compressor.exporters``."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import cast

from exporters.base import Availability, Exporter
from exporters.errors import ExporterUsageError

ENTRY_POINT_GROUP = "compressor.exporters"

_BUILT_IN = {
    "onnx": "exporters.onnx:OnnxExporter",
    "torch-export": "exporters.torch_export:TorchExportExporter",
    "openvino": "exporters.openvino:OpenVinoExporter",
    "tensorrt": "exporters.tensorrt:TensorRTExporter",
    "tensorrt-rtx": "exporters.tensorrt_rtx:TensorRTRTXExporter",
}


def targets() -> dict[str, str]:
    """Every format with the ``"module:attr"`` that implements it. A third party cannot replace a built-in one."""
    found = dict(_BUILT_IN)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found:
            raise ExporterUsageError(
                f"The format {point.name!r} of {point.value!r} is taken by {found[point.name]!r}; rename one of them."
            )
        found[point.name] = point.value
    return found


def names() -> list[str]:
    """All registered format names, sorted."""
    return sorted(targets())


def get(name: str) -> Exporter:
    """The exporter called ``name``. Raises :class:`ExporterUsageError` with the closest names if there is none."""
    known = targets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ExporterUsageError(f"Unknown export format {name!r}.{hint} Choose from: {', '.join(sorted(known))}.")
    module, _, attribute = known[name].partition(":")
    return cast(Exporter, getattr(importlib.import_module(module), attribute)())


def availability() -> dict[str, Availability]:
    """Every format with whether it can be used here, and why not."""
    return {name: get(name).is_available() for name in names()}
