"""TensorRT-RTX on a GeForce or RTX card of this machine."""

from __future__ import annotations

from profilers.runtimes.tensorrt_family import TensorRTRuntime


class TensorRTRTX(TensorRTRuntime):
    """See :mod:`profilers.runtimes.tensorrt_family`."""

    name = "tensorrt-rtx"
    module = "tensorrt_rtx"
    package = "tensorrt-rtx-cu13"
    extra = "tensorrt-rtx"
    suffix = ".rtx"
