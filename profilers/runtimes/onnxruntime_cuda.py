"""ONNX Runtime on an NVIDIA GPU, data resident on the device."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers.base import Availability, Runner, RunnerInfo, require
from profilers.cuda import CudaRunner, cuda_device, device_name, with_gpu
from profilers.errors import RefusedError
from profilers.onnx_input import onnx_file, onnx_inputs, onnx_precision

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs


class OnnxRuntimeCuda:
    """Times ONNX files, or modules exported to ONNX, with the CUDA execution provider."""

    name = "onnxruntime-cuda"

    def is_available(self) -> Availability:
        """The CPU package has the same module name, so the distribution is what counts."""
        try:
            version("onnxruntime-gpu")
        except PackageNotFoundError:
            return Availability(
                False, "onnxruntime-gpu is not installed; install it with: pip install 'compressor[gpu]'"
            )
        return with_gpu(Availability(True))

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`; ``options`` go to the CUDA execution provider.

        Inputs and outputs stay on the GPU, and the session runs on a stream of torch's so that events can time it.
        """
        require(self)
        import onnxruntime
        import torch

        device = cuda_device(self.name)
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # finds the CUDA libraries that came with torch
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        provider = {"device_id": device.index, "user_compute_stream": str(stream.cuda_stream), **options}
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        run_options = onnxruntime.RunOptions()
        # Without this the session waits for the GPU itself, and issuing could not be told from computing.
        run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        with onnx_file(model, example_inputs) as path:
            feeds = onnx_inputs(path, example_inputs, batch, seed=seed)
            precision = onnx_precision(path)
            try:
                session = onnxruntime.InferenceSession(
                    str(path), settings, providers=[("CUDAExecutionProvider", provider), "CPUExecutionProvider"]
                )
                if "CUDAExecutionProvider" not in session.get_providers():
                    raise RefusedError("ONNX Runtime could not start its CUDA provider and fell back to the CPU.")
                binding = session.io_binding()
                held = {
                    name: onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", device.index)
                    for name, value in feeds.items()
                }
                for name, value in held.items():
                    binding.bind_ortvalue_input(name, value)
                for output in session.get_outputs():
                    binding.bind_output(output.name, "cuda", device.index)
                session.run_with_iobinding(binding, run_options)
                stream.synchronize()
            except RefusedError:
                raise
            except Exception as error:  # onnxruntime's exceptions share no base class
                raise RefusedError(f"ONNX Runtime refuses {path.name}: {str(error).splitlines()[0]}") from error
        first = next(iter(feeds.values()), None)
        info = RunnerInfo(
            runtime=self.name,
            version=onnxruntime.__version__,
            device=device_name(),
            precision=precision,
            threads=0,
            batch=int(first.shape[0]) if first is not None and first.ndim else 1,
        )
        return CudaRunner(info, stream, lambda: session.run_with_iobinding(binding, run_options), (held, session))
