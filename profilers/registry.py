"""Runtimes by name; other packages add theirs through the entry-point group ``compressor.profilers``."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, cast

from compressor.plugins.registry import Registry
from profilers.errors import ProfilerUsageError

if TYPE_CHECKING:
    from profilers.base import Availability, Runtime
    from profilers.layers.timer import RemoteRuntime

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


#: Environment variable with ``module:function``: what finds devices of other machines by their names. It is in the
#: environment so that processes which a job starts find them, too.
DEVICES = "COMPRESSOR_RUNTIMES"


def names() -> list[str]:
    """All registered targets, sorted."""
    return RUNTIMES.names()


def get(name: str) -> Runtime:
    """The runtime called ``name``. Raises :class:`ProfilerUsageError` with the closest names if there is none."""
    found = elsewhere(name)
    if found is not None:
        return cast("Runtime", found)
    return cast("Runtime", RUNTIMES.get(name)())


def elsewhere(name: str) -> RemoteRuntime | None:
    """The device of another machine that has this name, if there is one."""
    finder = os.environ.get(DEVICES, "")
    if not finder or name in RUNTIMES:
        return None
    module, _, attribute = finder.partition(":")
    return cast("RemoteRuntime | None", getattr(importlib.import_module(module), attribute)(name))


def availability() -> dict[str, Availability]:
    """Every target with whether it can be used here, and why not."""
    return {name: get(name).is_available() for name in names()}
