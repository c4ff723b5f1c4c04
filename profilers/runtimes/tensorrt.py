"""TensorRT on the GPU of this machine."""

from __future__ import annotations

from profilers.runtimes.tensorrt_family import TensorRTRuntime


class TensorRT(TensorRTRuntime):
    """See :mod:`profilers.runtimes.tensorrt_family`."""

    name = "tensorrt"
    module = "tensorrt"
    package = "tensorrt"
    extra = "gpu"
    suffix = ".engine"
