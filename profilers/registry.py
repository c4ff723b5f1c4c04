"""Runtimes by name; other packages add theirs through the entry-point group ``compressor.profilers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from compressor.plugins.registry import Registry
from profilers.errors import ProfilerUsageError

if TYPE_CHECKING:
    from profilers.base import Availability, Runtime

RUNTIMES = Registry(
    "target",
    {
        "torch-cpu": "profilers.runtimes.torch_cpu:TorchCpu",
        "torch-cuda": "profilers.runtimes.torch_cuda:TorchCuda",
        "onnxruntime-cpu": "profilers.runtimes.onnxruntime_cpu:OnnxRuntimeCpu",
        "onnxruntime-cuda": "profilers.runtimes.onnxruntime_cuda:OnnxRuntimeCuda",
        "openvino-cpu": "profilers.runtimes.openvino_cpu:OpenVinoCpu",
        "tensorrt": "profilers.runtimes.tensorrt:TensorRT",
        "tensorrt-rtx": "profilers.runtimes.tensorrt_rtx:TensorRTRTX",
        "simulated": "profilers.runtimes.simulated:SimulatedDevice",
    },
    "compressor.profilers",
    ProfilerUsageError,
)


def names() -> list[str]:
    """All registered targets, sorted."""
    return RUNTIMES.names()


def get(name: str) -> Runtime:
    """The runtime called ``name``. Raises :class:`ProfilerUsageError` with the closest names if there is none."""
    return cast("Runtime", RUNTIMES.get(name)())


def availability() -> dict[str, Availability]:
    """Every target with whether it can be used here, and why not."""
    return {name: get(name).is_available() for name in names()}
