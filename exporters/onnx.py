"""ONNX by torch's graph exporter, checked in ONNX Runtime.

The batch axis is dynamic. If a model refuses that (it reads its batch size into Python, or a shape comes out constant)
the batch of the example is kept and the reason is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exporters.base import (
    CHECK_BATCHES,
    TOLERANCES,
    Availability,
    ExportInfo,
    package_availability,
    package_version,
    require,
)
from exporters.check import Run, check_notes
from exporters.errors import UnsupportedExportError
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
from exporters.quiet import first_line
from exporters.traced import Comparison, write_traced

#: Protocol buffers end at 2 GiB; the graph itself needs some of it.
SINGLE_FILE_BYTES = 2_000_000_000

#: Written by the exporter for debugging; they hold source paths of the machine and double the size of small files.
_DEBUG_METADATA = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")


class OnnxExporter:
    """See the module's documentation."""

    name = "onnx"
    suffix = ".onnx"

    def is_available(self) -> Availability:
        """onnx, onnxscript and onnxruntime come with the default installation."""
        for module in ("onnx", "onnxscript", "onnxruntime"):
            found = package_availability(module, package=module, extra=None)
            if not found:
                return found
        return Availability(True)

    def export(
        self,
        model: nn.Module,
        example_inputs: Tensor | Sequence[Tensor],
        path: Path,
        *,
        opset_version: int | None = None,
        dynamic_batch: bool = True,
        batches: Sequence[int] = CHECK_BATCHES,
        tolerance: float | None = None,
        check: bool = True,
        seed: int = 0,
    ) -> ExportInfo:
        """Write ``model`` to ``path`` as one ONNX file (plus ``path.data`` when it is above 2 GB).

        Args:
            example_inputs: a tensor or a tuple of tensors; axis 0 is the batch. Only shapes and types matter.
            opset_version: ONNX operator set; ``None`` takes the exporter's own.
            dynamic_batch: ``False`` keeps the batch size of the example.
            batches: batch sizes compared with PyTorch.
            tolerance: largest accepted max|difference| / max|output|; ``None`` takes the precision's.

        Raises:
            UnsupportedExportError: the model cannot be traced or an operator has no ONNX form.
            ExportCheckError: ONNX Runtime computes something else.
        """
        require(self.is_available(), "The ONNX exporter")
        started = time.perf_counter()
        path = Path(path)
        example = as_tuple(example_inputs)
        precision = model_precision(model)
        limit = TOLERANCES[precision] if tolerance is None else tolerance
        written = write_traced(
            model,
            example,
            path,
            lambda staging, dynamic: _write(model, example, staging, dynamic=dynamic, opset_version=opset_version),
            Comparison(onnxruntime_run, batches, limit, seed, "The ONNX file") if check else None,
            dynamic_batch=dynamic_batch,
        )
        if len(written.files) == 1:  # an older, larger model may have left its weights here
            path.with_name(path.name + ".data").unlink(missing_ok=True)
        files = tuple(path.with_name(name) for name in written.files)
        return ExportInfo(
            format=self.name,
            path=path,
            files=files,
            bytes=total_bytes(files),
            precision=precision,
            dynamic_batch=written.dynamic,
            checks=written.checks,
            tolerance=limit if check else None,
            checked_with=f"onnxruntime {package_version('onnxruntime', 'onnxruntime-gpu')}" if check else None,
            opset_version=written.opset,
            seconds=time.perf_counter() - started,
            notes=(*written.notes, *check_notes(written.checks)),
        )


def _write(
    model: nn.Module, example: tuple[Tensor, ...], path: Path, *, dynamic: bool, opset_version: int | None
) -> int:
    """Trace, translate, save; returns the operator set used."""
    # Two samples: a batch of one would be taken for a constant by the tracer.
    inputs = random_inputs(example, 2 if dynamic else None, device=model_device(model))
    with eval_mode(model), torch.no_grad():
        try:
            names = [name for name, _ in flatten_outputs(model(*inputs))]
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                dynamic_shapes=dynamic_shapes(model, example) if dynamic else None,
                opset_version=opset_version,
                input_names=["input"] if len(inputs) == 1 else None,
                output_names=names if len(set(names)) == len(names) else None,
                verbose=False,
            )
        except Exception as error:  # any exception: this runs the user's forward and a tracer over it
            raise UnsupportedExportError(
                f"{type(model).__name__} cannot be exported to ONNX: {first_line(error)}"
            ) from error
    if program is None:
        raise UnsupportedExportError(f"torch.onnx.export gave nothing for {type(model).__name__}.")
    for node in program.model.graph.all_nodes():
        for key in _DEBUG_METADATA:
            node.metadata_props.pop(key, None)
    weight_bytes = sum(
        value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value
    )
    program.save(str(path), external_data=weight_bytes > SINGLE_FILE_BYTES)
    return int(program.model.opset_imports[""])


def onnxruntime_run(path: Path) -> Run:
    """A function that runs an ONNX file on the CPU, for comparing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise UnsupportedExportError(f"ONNX Runtime cannot load the exported file: {first_line(error)}") from error
    names = [value.name for value in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        try:
            return list(session.run(None, feeds))
        except Exception as error:  # a shape baked in at trace time shows up here
            raise UnsupportedExportError(f"ONNX Runtime cannot run the exported file: {first_line(error)}") from error

    return run
