"""TensorRT engines, built on and for the GPU of this machine."""

from __future__ import annotations

from exporters.formats.tensorrt_build import TensorRTFamily


class TensorRTExporter(TensorRTFamily):
    """See :mod:`exporters.formats.tensorrt_build`."""

    name = "tensorrt"
    suffix = ".engine"
    module = "tensorrt"
    package = "tensorrt"
    extra = "gpu"
    builds_without_gpu = False
