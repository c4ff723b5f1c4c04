"""PyTorch on an NVIDIA GPU, eager or replayed as a CUDA graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers.base import Availability, Runner, RunnerInfo, package_availability, require
from profilers.cuda import CudaRunner, captured, cuda_device, device_name, with_gpu
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.runtimes.torch_cpu import torch_module

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs


class TorchCuda:
    """Times modules in eval mode under ``torch.inference_mode``."""

    name = "torch-cuda"

    def is_available(self) -> Availability:
        """torch comes with the default installation; a GPU does not."""
        return with_gpu(package_availability("torch", package="torch", extra=None))

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        cuda_graph: bool = False,
        channels_last: bool = False,
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`; ``threads`` means nothing here.

        Args:
            cuda_graph: record the forward once and replay it, which takes the host's launch cost away.
            channels_last: lay out weights and four-dimensional inputs channels last.
        """
        require(self)
        if options:
            raise ProfilerUsageError(f"{self.name} has no option {', '.join(sorted(options))}.")
        import torch

        from exporters.inputs import model_precision

        device = cuda_device(self.name)
        module, call = torch_module(model, example_inputs, device, batch, seed)
        if channels_last:
            layout = torch.channels_last
            module = module.to(memory_format=layout)
            call = call.with_tensors([v.to(memory_format=layout) if v.ndim == 4 else v for v in call.tensors])
        first = call.tensors[0]
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))

        def enqueue() -> object:
            return call.run(module)

        kept: tuple[Any, ...] = (module, call)
        if cuda_graph:
            try:
                graph = captured(enqueue, stream)
            except RuntimeError as error:
                raise RefusedError(
                    f"The model cannot be captured as a CUDA graph: {str(error).splitlines()[0]}"
                ) from error
            enqueue, kept = graph.replay, (*kept, graph)
        info = RunnerInfo(
            runtime=self.name,
            version=torch.__version__,
            device=device_name(),
            precision=model_precision(module),
            threads=0,
            batch=first.shape[0] if first.ndim else 1,
        )
        return CudaRunner(info, stream, enqueue, kept)
