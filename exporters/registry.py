"""Export formats by name; other packages add theirs through the entry-point group ``compressor.exporters``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from compressor.plugins.registry import Registry
from exporters.errors import ExporterUsageError

if TYPE_CHECKING:
    from exporters.base import Availability, Exporter

#: The export format that needs data.
INT8_FORMAT = "onnx-int8"


FORMATS = Registry(
    "export format",
    {
        "onnx": "exporters.formats.onnx:OnnxExporter",
        "onnx-int8": "exporters.formats.onnx_int8:OnnxInt8Exporter",
        "torch-export": "exporters.formats.torch_export:TorchExportExporter",
        "openvino": "exporters.formats.openvino:OpenVinoExporter",
        "tensorrt": "exporters.formats.tensorrt:TensorRTExporter",
        "tensorrt-rtx": "exporters.formats.tensorrt_rtx:TensorRTRTXExporter",
    },
    "compressor.exporters",
    ExporterUsageError,
)


def names() -> list[str]:
    """All registered format names, sorted."""
    return FORMATS.names()


def get(name: str) -> Exporter:
    """The exporter called ``name``. Raises :class:`ExporterUsageError` with the closest names if there is none."""
    return cast("Exporter", FORMATS.get(name)())


def availability() -> dict[str, Availability]:
    """Every format with whether it can be used here, and why not."""
    return {name: get(name).is_available() for name in names()}
