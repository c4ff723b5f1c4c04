"""Timing on an NVIDIA GPU: device events for what the GPU does, the wall clock for what the host waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exporters.errors import ExporterError
from exporters.nvidia import gpu_availability
from profilers.base import Availability, RunnerInfo, Samples
from profilers.errors import DeviceLostError, ProfilerError, ProfilerUsageError, TargetUnavailableError

if TYPE_CHECKING:
    import torch

__all__ = ["CudaRunner", "cuda_device", "gpu_availability", "with_gpu"]


def with_gpu(package: Availability) -> Availability:
    """Available if the package is and a GPU is."""
    return package if not package else gpu_availability()


def cuda_device(target: str) -> torch.device:
    """The current CUDA device. Raises :class:`TargetUnavailableError` if torch cannot use one."""
    import torch

    if not torch.cuda.is_available():
        raise TargetUnavailableError(
            f"The target {target} cannot be used here: torch {torch.__version__} finds no usable GPU."
        )
    return torch.device("cuda", torch.cuda.current_device())


class CudaRunner:
    """Times work that ``enqueue`` issues on ``stream`` without waiting for it.

    Every run is waited for before the next one starts, as when single requests are served.
    """

    def __init__(
        self, info: RunnerInfo, stream: torch.cuda.Stream, enqueue: Callable[[], object], keep: object = None
    ) -> None:
        self._info, self._stream, self._keep = info, stream, keep
        self._enqueue: Callable[[], object] | None = enqueue

    @property
    def info(self) -> RunnerInfo:
        return self._info

    def run(self) -> None:
        self.measure(1)

    def measure(self, runs: int) -> Samples:
        import torch

        if self._enqueue is None:
            raise ProfilerUsageError("This runner was closed; load the model again.")
        samples = Samples()
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                begin, end = _event(), _event()
                for _ in range(runs):
                    self._stream.synchronize()
                    started = time.perf_counter_ns()
                    begin.record(self._stream)
                    self._enqueue()
                    end.record(self._stream)
                    issued = time.perf_counter_ns()
                    end.synchronize()
                    done = time.perf_counter_ns()
                    samples.latency_ms.append((done - started) / 1e6)
                    samples.enqueue_ms.append((issued - started) / 1e6)
                    samples.compute_ms.append(begin.elapsed_time(end))
        except ProfilerError:
            raise
        except Exception as error:  # the exceptions of the runtimes share no base class; this one ran before
            if "cuda" not in str(error).lower() and not isinstance(error, ExporterError):
                raise
            raise DeviceLostError(
                f"The GPU stopped answering on {self._info.runtime}: {str(error).splitlines()[0]}. "
                "Results so far are kept; start again in a new process."
            ) from error
        return samples

    def close(self) -> None:
        self._enqueue = None
        self._keep = None


def _event() -> torch.cuda.Event:
    import torch

    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def device_name() -> str:
    """Marketing name of the current GPU."""
    import torch

    return str(torch.cuda.get_device_name())


def captured(enqueue: Callable[[], object], stream: torch.cuda.Stream) -> Any:
    """``enqueue`` recorded as a CUDA graph, after the warm-up that libraries need before capture; replay it."""
    import torch

    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            enqueue()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            enqueue()
    return graph
