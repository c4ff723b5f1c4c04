"""PyTorch's own format: an exported program in a ``.pt2`` file."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.axes import Asked, Axes, dynamic_shapes, read_axes, tracing_sizes
from exporters.base import (
    CHECK_BATCHES,
    TOLERANCES,
    Availability,
    ExportInfo,
    Inputs,
    package_availability,
    package_version,
)
from exporters.check import Run, check_notes
from exporters.errors import ExporterUsageError, UnsupportedExportError
from exporters.example import Example, as_example
from exporters.files import total_bytes
from exporters.formats.onnx import constant_notes, open_details
from exporters.inputs import eval_mode, flatten_outputs, model_device, model_precision, random_inputs
from exporters.quiet import EXPORTING, first_line, quiet
from exporters.traced import Comparison, Written, write_traced

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class TorchExportExporter:
    """See the module's documentation."""

    name = "torch-export"
    suffix = ".pt2"

    def is_available(self) -> Availability:
        """torch comes with the default installation."""
        return package_availability("torch", package="torch", extra=None)

    def export(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        path: Path,
        *,
        dynamic_batch: bool = True,
        dynamic_axes: Asked = None,
        batches: Sequence[int] = CHECK_BATCHES,
        tolerance: float | None = None,
        check: bool = True,
        seed: int = 0,
    ) -> ExportInfo:
        """Write ``model`` to ``path``; options as for :meth:`exporters.formats.onnx.OnnxExporter.export`."""
        started = time.perf_counter()
        path = Path(path)
        example = as_example(example_inputs)
        axes = read_axes(dynamic_axes, model, example)
        precision = model_precision(model)
        limit = TOLERANCES[precision] if tolerance is None else tolerance
        written = write_traced(
            model,
            example,
            path,
            lambda staging, batch, opened: _write(model, example, staging, opened, batch=batch),
            Comparison(lambda file: _torch_run(file, model, example), batches, limit, seed, "The exported program")
            if check
            else None,
            dynamic_batch=dynamic_batch,
            axes=axes,
        )
        return ExportInfo(
            format=self.name,
            path=path,
            files=(path,),
            bytes=total_bytes((path,)),
            precision=precision,
            dynamic_batch=written.dynamic,
            checks=written.checks,
            tolerance=limit if check else None,
            checked_with=f"torch {package_version('torch')}" if check else None,
            seconds=time.perf_counter() - started,
            notes=(*written.notes, *constant_notes(example.constants(model)), *check_notes(written.checks)),
            details=open_details(example.names(model), written.written.opened),
        )


def _write(model: nn.Module, example: Example, path: Path, axes: Axes, *, batch: bool) -> Written:
    import torch

    # Two samples: a batch of one would be taken for a constant by the tracer.
    sizes = tracing_sizes(example, axes)
    inputs = random_inputs(example.tensors, 2 if batch else None, device=model_device(model), sizes=sizes)
    call = example.with_tensors(inputs)
    shapes = dynamic_shapes(model, example, axes, batch=batch, named=False) if batch or any(axes) else None
    with eval_mode(model), torch.no_grad():
        try:
            program = torch.export.export(model, call.args, dict(call.kwargs), dynamic_shapes=shapes, strict=False)
            torch.export.save(program, path)
        except Exception as error:  # any exception: this runs the user's forward and a tracer over it
            raise UnsupportedExportError(
                f"torch.export cannot capture {type(model).__name__}: {first_line(error)}"
            ) from error
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    taken = [name for name in program.graph_signature.user_inputs if isinstance(name, str) and name in values]
    given = [values[name] for name in taken if isinstance(values[name], torch.Tensor)]
    return Written(None, tuple(_open_axes(value.shape) for value in given))


def _open_axes(shape: Sequence[object]) -> dict[int, str]:
    """The open axes of an input, but for its first."""
    return {axis: str(size) for axis, size in enumerate(shape) if axis and type(size) is not int}


def load_program(path: Path) -> ExportedProgram:
    """Read a ``.pt2`` file; nothing in it is unpickled. It still is a program: run only files you trust.

    Raises:
        ExporterUsageError: it is missing, is no such file, or holds pickled objects.
    """
    import torch

    if not Path(path).is_file():
        raise ExporterUsageError(f"There is no file {path}; pass a .pt2 file written by torch.export.")
    try:
        _refuse_pickles(path)
        with quiet(), _weights_only():
            return torch.export.load(path)
    except ExporterUsageError:
        raise
    except Exception as error:  # the reader raises whatever its archive reader raises
        raise ExporterUsageError(f"{path} is no .pt2 file that can be read: {first_line(error)}") from error


def _refuse_pickles(path: Path) -> None:
    """Plain tensors lie in the archive as bytes; anything else would be handed to the unpickler."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith(("weights_config.json", "constants_config.json")):
                continue
            for key, payload in json.loads(archive.read(name))["config"].items():
                if payload["use_pickle"] or not payload["path_name"].startswith(("weight_", "tensor_")):
                    raise ExporterUsageError(
                        f"{path} holds the pickled object {key!r}, which could run code; export the model again."
                    )


@contextmanager
def _weights_only() -> Iterator[None]:
    """The reader loads the stored sample inputs with ``torch.load``; this keeps it from falling back to pickle."""
    with EXPORTING:  # the environment is the process's
        before = os.environ.get(_FORCE_WEIGHTS_ONLY)
        os.environ[_FORCE_WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_FORCE_WEIGHTS_ONLY]
            else:
                os.environ[_FORCE_WEIGHTS_ONLY] = before


def _torch_run(path: Path, model: nn.Module, example: Example) -> Run:
    import torch

    module = load_program(path).module()
    device = model_device(model)

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        try:
            with torch.inference_mode():
                outputs = example.run(module, [value.to(device) for value in inputs])
        except Exception as error:  # a size or a number built in at trace time shows up here
            raise UnsupportedExportError(f"The exported program does not run: {first_line(error)}") from error
        return [value.detach().cpu().to(torch.float64).numpy() for _, value in flatten_outputs(outputs)]

    return run
