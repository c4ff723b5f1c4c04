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

from exporters.base import (
    CHECK_BATCHES,
    TOLERANCES,
    Availability,
    ExportInfo,
    package_availability,
    package_version,
)
from exporters.check import Run, check_notes
from exporters.errors import ExporterUsageError, UnsupportedExportError
from exporters.files import total_bytes
from exporters.inputs import (
    as_tuple,
    dynamic_shapes,
    eval_mode,
    flatten_outputs,
    model_device,
    model_precision,
    random_inputs,
)
from exporters.quiet import first_line, quiet
from exporters.traced import Comparison, write_traced

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
        example_inputs: Tensor | Sequence[Tensor],
        path: Path,
        *,
        dynamic_batch: bool = True,
        batches: Sequence[int] = CHECK_BATCHES,
        tolerance: float | None = None,
        check: bool = True,
        seed: int = 0,
    ) -> ExportInfo:
        """Write ``model`` to ``path``; options as for :meth:`exporters.onnx.OnnxExporter.export`."""
        started = time.perf_counter()
        path = Path(path)
        example = as_tuple(example_inputs)
        precision = model_precision(model)
        limit = TOLERANCES[precision] if tolerance is None else tolerance
        written = write_traced(
            model,
            example,
            path,
            lambda staging, dynamic: _write(model, example, staging, dynamic=dynamic),
            Comparison(lambda file: _torch_run(file, model), batches, limit, seed, "The exported program")
            if check
            else None,
            dynamic_batch=dynamic_batch,
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
            notes=(*written.notes, *check_notes(written.checks)),
        )


def _write(model: nn.Module, example: tuple[Tensor, ...], path: Path, *, dynamic: bool) -> None:
    import torch

    # Two samples: a batch of one would be taken for a constant by the tracer.
    inputs = random_inputs(example, 2 if dynamic else None, device=model_device(model))
    with eval_mode(model), torch.no_grad():
        try:
            program = torch.export.export(
                model, inputs, dynamic_shapes=dynamic_shapes(model, example) if dynamic else None, strict=False
            )
            torch.export.save(program, path)
        except Exception as error:  # any exception: this runs the user's forward and a tracer over it
            raise UnsupportedExportError(
                f"torch.export cannot capture {type(model).__name__}: {first_line(error)}"
            ) from error


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
    before = os.environ.get(_FORCE_WEIGHTS_ONLY)
    os.environ[_FORCE_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_WEIGHTS_ONLY]
        else:
            os.environ[_FORCE_WEIGHTS_ONLY] = before


def _torch_run(path: Path, model: nn.Module) -> Run:
    import torch

    module = load_program(path).module()
    device = model_device(model)

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            outputs = module(*(value.to(device) for value in inputs))
        return [value.detach().cpu().to(torch.float64).numpy() for _, value in flatten_outputs(outputs)]

    return run
