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
    Check,
    ExportInfo,
    package_availability,
    package_version,
    require,
)
from exporters.check import Run, check_all, check_notes
from exporters.errors import ExportCheckError, UnsupportedExportError
from exporters.files import staged, total_bytes
from exporters.inputs import (
    as_tuple,
    batch_axes,
    dynamic_shapes,
    eval_mode,
    flatten_outputs,
    model_device,
    model_precision,
    random_inputs,
)
from exporters.quiet import first_line, quiet

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
        notes: list[str] = []
        attempts: list[bool] = [True, False] if dynamic_batch and any(batch_axes(example)) else [False]
        for dynamic in attempts:
            try:
                with staged(path) as staging, quiet():
                    opset = _write(model, example, staging, dynamic=dynamic, opset_version=opset_version)
                    written = sorted(file.name for file in staging.parent.iterdir())
                    checks: tuple[Check, ...] = ()
                    if check:
                        checks = check_all(
                            model,
                            example,
                            onnxruntime_run(staging),
                            batches=list(batches) if dynamic else [None],
                            tolerance=limit,
                            seed=seed,
                            what="The ONNX file",
                        )
            except (UnsupportedExportError, ExportCheckError) as error:
                if dynamic is attempts[-1]:
                    raise
                notes.append(f"The batch axis is fixed at {example[0].shape[0]}: {first_line(error)}")
                continue
            break
        if len(written) == 1:  # an older, larger model may have left its weights here
            path.with_name(path.name + ".data").unlink(missing_ok=True)
        files = tuple(path.with_name(name) for name in written)
        return ExportInfo(
            format=self.name,
            path=path,
            files=files,
            bytes=total_bytes(files),
            precision=precision,
            dynamic_batch=dynamic,
            checks=checks,
            tolerance=limit if check else None,
            checked_with=f"onnxruntime {package_version('onnxruntime', 'onnxruntime-gpu')}" if check else None,
            opset_version=opset,
            seconds=time.perf_counter() - started,
            notes=(*notes, *check_notes(checks)),
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
