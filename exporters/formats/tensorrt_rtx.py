"""TensorRT-RTX engines for GeForce and RTX cards, built anywhere and specialised on the card when first run."""

from __future__ import annotations

from exporters.formats.tensorrt_build import TensorRTFamily


class TensorRTRTXExporter(TensorRTFamily):
    """See :mod:`exporters.formats.tensorrt_build`."""

    name = "tensorrt-rtx"
    suffix = ".rtx"
    module = "tensorrt_rtx"
    package = "tensorrt-rtx-cu13"
    extra = "tensorrt-rtx"
    builds_without_gpu = True
