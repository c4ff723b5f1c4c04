"""Timing engines of TensorRT and TensorRT-RTX through their common API."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilers.base import Availability, Runner, RunnerInfo, package_availability, require
from profilers.cuda import CudaRunner, cuda_device, device_name, with_gpu
from profilers.errors import ProfilerUsageError, RefusedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exporters.base import Inputs
    from exporters.formats.tensorrt_engine import Engine


class TensorRTRuntime:
    """Times an engine file, or builds an engine from an ONNX file or a module first."""

    name: str
    module: str
    package: str
    extra: str
    suffix: str

    def is_available(self) -> Availability:
        """The extra brings the package; running needs a GPU."""
        return with_gpu(package_availability(self.module, package=self.package, extra=self.extra))

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        precision: str = "fp32",
        cuda_graph: bool = False,
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`; ``threads`` means nothing here.

        Args:
            precision: of the engine to build; an engine file has its own, which is only repeated.
            cuda_graph: record the run once and replay it.
            options: for the exporter, when an engine is built.
        """
        require(self)
        import torch

        from exporters.errors import ExporterError
        from exporters.formats.tensorrt_engine import load_engine
        from exporters.inputs import random_inputs

        device = cuda_device(self.name)
        runtime = importlib.import_module(self.module)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = self._engine_file(model, example_inputs, batch, precision, Path(folder), options)
                engine = load_engine(runtime, path)
            inputs = random_inputs(_example(engine, example_inputs, batch), batch, seed=seed, device=device)
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                engine.bind(inputs)
                engine.enqueue(stream)
            stream.synchronize()
        except ExporterError as error:
            raise RefusedError(str(error)) from error

        def enqueue() -> object:
            engine.enqueue(stream)
            return None

        kept: tuple[Any, ...] = (engine,)
        if cuda_graph:
            from profilers.cuda import captured

            graph = captured(enqueue, stream)
            enqueue, kept = graph.replay, (engine, graph)
        info = RunnerInfo(
            runtime=self.name,
            version=str(runtime.__version__),
            device=device_name(),
            precision=precision,
            threads=0,
            batch=inputs[0].shape[0] if inputs[0].ndim else 1,
        )
        return CudaRunner(info, stream, enqueue, kept)

    def _engine_file(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None,
        batch: int | None,
        precision: str,
        folder: Path,
        options: dict[str, Any],
    ) -> Path:
        """The engine file given, or one built for this batch size."""
        from torch import nn

        from exporters.registry import get
        from profilers.onnx_input import onnx_inputs

        if isinstance(model, (str, Path)):
            path = Path(model)
            if not path.is_file():
                raise ProfilerUsageError(f"There is no file {path}; pass a module, an ONNX file or an engine.")
            if path.suffix != ".onnx":
                return path
            import torch

            if precision == "fp16":
                raise ProfilerUsageError("For fp16 pass a module or an engine; an ONNX file keeps its own precision.")
            options = {**options, "onnx_path": path}
            example: Any = tuple(torch.from_numpy(v) for v in onnx_inputs(path, example_inputs, batch).values())
            module: nn.Module = nn.Identity()  # never run: the ONNX file is what is built
        else:
            if example_inputs is None:
                raise ProfilerUsageError("A module needs example_inputs; pass a tensor or a tuple of tensors.")
            module, example = model, example_inputs
        if batch is not None:
            options = {"opt_batch": batch, **options}
        target = folder / f"model{self.suffix}"
        return get(self.name).export(module, example, target, precision=precision, check=False, **options).path


def _example(engine: Engine, example_inputs: Inputs | None, batch: int | None) -> tuple[Tensor, ...]:
    import torch

    from exporters.example import as_example

    if example_inputs is not None:
        return as_example(example_inputs).tensors
    example = []
    for name, shape in engine.shapes().items():
        if -1 in shape[1:]:
            raise ProfilerUsageError(f"The engine leaves sizes of {name!r} open: {shape}; pass example inputs.")
        sizes = [size if size != -1 else batch or 1 for size in shape]
        example.append(torch.ones(sizes, dtype=engine.dtype(name)))
    return tuple(example)
