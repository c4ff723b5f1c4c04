"""ONNX Runtime on the CPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers.base import (
    Availability,
    Runner,
    RunnerInfo,
    WallClockRunner,
    default_threads,
    package_availability,
    require,
)
from profilers.errors import RefusedError
from profilers.kernels import KernelTimes, onnxruntime_kernels
from profilers.machine import cpu_name
from profilers.onnx_input import onnx_file, onnx_inputs, onnx_precision

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs


class OnnxRuntimeCpu:
    """Times ONNX files, or modules exported to ONNX, with every graph optimisation on."""

    name = "onnxruntime-cpu"

    def is_available(self) -> Availability:
        """onnxruntime comes with the default installation."""
        return package_availability("onnxruntime", package="onnxruntime", extra=None)

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
        """See :meth:`profilers.base.Runtime.load`. ``options`` are session configuration entries."""
        require(self)
        import onnxruntime

        count = threads or default_threads()
        settings = _options(count)
        for key, value in options.items():
            settings.add_session_config_entry(key, str(value))
        with onnx_file(model, example_inputs) as path:
            feeds = onnx_inputs(path, example_inputs, batch, seed=seed)
            precision = onnx_precision(path)
            try:
                session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
                binding = session.io_binding()
                for name, value in feeds.items():
                    binding.bind_cpu_input(name, value)
                for output in session.get_outputs():
                    binding.bind_output(output.name)
                session.run_with_iobinding(binding)
            except Exception as error:  # onnxruntime's exceptions share no base class
                logging.getLogger(__name__).debug("refused", exc_info=True)
                raise RefusedError(f"ONNX Runtime refuses {path.name}: {str(error).splitlines()[0]}") from error
        first = next(iter(feeds.values()), None)
        info = RunnerInfo(
            runtime=self.name,
            version=onnxruntime.__version__,
            device=cpu_name(),
            precision=precision,
            threads=count,
            batch=int(first.shape[0]) if first is not None and first.ndim else 1,
        )
        return WallClockRunner(info, lambda: session.run_with_iobinding(binding))

    def kernels(self, path: Path, *, threads: int, batch: int, runs: int, seed: int = 0) -> KernelTimes:
        """See :meth:`profilers.kernels.KernelRuntime.kernels`."""
        require(self)
        feeds = onnx_inputs(path, None, batch, seed=seed)
        try:
            return onnxruntime_kernels(_options(threads), path, feeds, runs)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise RefusedError(f"ONNX Runtime refuses {path.name}: {str(error).splitlines()[0]}") from error


def _options(threads: int) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Worker threads wait actively for the next operator. Left on between runs, they would take the cores from the
    # network that is timed next.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return settings
