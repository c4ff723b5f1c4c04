"""Int8 for ONNX Runtime by its own static quantisation: QuantizeLinear and DequantizeLinear around what is quantised.

Weights are symmetric per channel, activations symmetric per tensor, with ranges seen on calibration inputs. OpenVINO
reads such files, too, and TensorRT does if biases are left as they are.

x86 processors without VNNI add pairs of products in 16 bits, and large ones saturate there. Where this shows, weights
are given 7 bits instead of 8, as ONNX Runtime advises; such a file computes the same on every processor.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from exporters.axes import Asked
from exporters.base import TOLERANCES, Availability, ExportCheck, ExportInfo, Inputs, package_version, require
from exporters.check import compare_on
from exporters.errors import ExportCheckError, ExporterUsageError, UnsupportedExportError
from exporters.example import Example, as_example
from exporters.files import staged, total_bytes
from exporters.formats.onnx import OnnxExporter
from exporters.formats.onnx_runtime import onnxruntime_run
from exporters.formats.onnx_source import onnx_source
from exporters.inputs import batch_axes, model_device
from exporters.quiet import first_line, quiet

METHODS = ("minmax", "entropy", "percentile")
#: Above this relative error saturation is looked for.
_SUSPECT = 0.05
_SATURATES = (
    "Weights have 7 bits, as the 8-bit products of this processor saturate (no VNNI) and were twice as far off."
)


class OnnxInt8Exporter:
    """See the module's documentation."""

    name = "onnx-int8"
    suffix = ".int8.onnx"

    def is_available(self) -> Availability:
        """The quantiser comes with onnxruntime, which comes with the default installation."""
        return OnnxExporter().is_available()

    def export(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        path: Path,
        *,
        calibration: Iterable[Inputs] | None = None,
        onnx_path: Path | None = None,
        method: str = "minmax",
        quantise_bias: bool = True,
        dynamic_batch: bool = True,
        dynamic_axes: Asked = None,
        opset_version: int | None = None,
        tolerance: float | None = None,
        check: bool = True,
    ) -> ExportInfo:
        """Quantise ``model`` and write it to ``path``.

        Args:
            calibration: batches of inputs as the network will see them; ranges are taken from what they cause.
            onnx_path: a single-precision ONNX file of the same model; without it one is made.
            method: how a range is found: "minmax", "entropy" or "percentile" (which leave out rare large values).
            quantise_bias: whether biases become int32, as ONNX Runtime's integer kernels need them; TensorRT wants them
                as they are.
            tolerance: largest accepted max|difference| / max|output| on the first calibration batch. The error is what
                was traded for speed, so the limit is wide and only catches what is broken; measure the accuracy.

        Raises:
            ExporterUsageError: no calibration inputs, or an unknown method.
            UnsupportedExportError: the model has no ONNX form, or the quantiser refuses it.
            ExportCheckError: the quantised file computes something else.
        """
        require(self.is_available(), "Int8 for ONNX")
        if method not in METHODS:
            raise ExporterUsageError(f"Ranges are found by {', '.join(METHODS)}, not by {method!r}.")
        batches = [_in_order(model, as_example(example_inputs), as_example(batch)) for batch in calibration or ()]
        if not batches or any(not len(batch[0]) for batch in batches):
            raise ExporterUsageError(
                "Int8 needs calibration inputs, and none were given; pass data (--data on the command line)."
            )
        started = time.perf_counter()
        path, example = Path(path), as_example(example_inputs)
        limit = TOLERANCES["int8"] if tolerance is None else tolerance
        checks: tuple[ExportCheck, ...] = ()
        bits = 8
        with (
            onnx_source(
                model,
                example,
                onnx_path,
                dynamic_batch=dynamic_batch,
                dynamic_axes=dynamic_axes,
                opset_version=opset_version,
            ) as source,
            staged(path) as staging,
            quiet(),
        ):
            quantised = _quantise(source.path, staging, batches, method, quantise_bias)
            if check:  # on inputs as the ranges were made for: random ones would lie outside of them
                typical = [value.to(model_device(model)) for value in batches[0]]
                checks = (compare_on(model, example, typical, onnxruntime_run(staging)),)
                if not checks[0].rel_error <= _SUSPECT:
                    narrow = staging.with_name(f"narrow-{staging.name}")
                    _quantise(source.path, narrow, batches, method, quantise_bias, bits=7)
                    narrowed = compare_on(model, example, typical, onnxruntime_run(narrow))
                    if narrowed.rel_error < checks[0].rel_error / 2:
                        os.replace(narrow, staging)
                        checks, bits = (narrowed,), 7
                    else:
                        narrow.unlink()
            if checks and not checks[0].rel_error <= limit:
                raise ExportCheckError(
                    f"The int8 file differs from PyTorch by {checks[0].rel_error:.0%} of the largest output, more than "
                    f"the {limit:.0%} allowed; nothing was written. Calibrate with more typical inputs, or by another "
                    "method (entropy, percentile)."
                )
        return ExportInfo(
            format=self.name,
            path=path,
            files=(path,),
            bytes=total_bytes((path,)),
            precision="int8",
            dynamic_batch=source.dynamic_batch,
            checks=checks,
            tolerance=limit if checks else None,
            checked_with=f"onnxruntime {package_version('onnxruntime', 'onnxruntime-gpu')}" if checks else None,
            opset_version=source.opset_version,
            seconds=time.perf_counter() - started,
            notes=(*source.notes, *([] if bits == 8 else [_SATURATES])),
            details={
                "quantised_operators": quantised,
                "weight_bits": bits,
                "method": method,
                "calibration_samples": sum(len(batch[0]) for batch in batches),
            },
        )


def _quantise(
    source: Path, path: Path, batches: Sequence[tuple[Tensor, ...]], method: str, bias: bool, bits: int = 8
) -> int:
    """Write the quantised file, with so many bits for weights; returns how many operators read quantised values."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            names = [value.name for value in onnx.load(str(prepared), load_external_data=False).graph.input]
            quantize_static(
                str(prepared),
                str(path),
                _reader(names, batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                reduce_range=bits == 7,
                calibrate_method=getattr(
                    CalibrationMethod, {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}[method]
                ),
                extra_options={"ActivationSymmetric": True, "QuantizeBias": bias},
            )
            written = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # the quantiser's exceptions share no base class
            raise UnsupportedExportError(f"ONNX Runtime cannot quantise the model: {first_line(error)}") from error
    dequantised = {node.output[0] for node in written.graph.node if node.op_type == "DequantizeLinear"}
    readers = [n for n in written.graph.node if n.op_type != "QuantizeLinear" and dequantised & set(n.input)]
    return len(readers)


def _in_order(model: nn.Module, example: Example, batch: Example) -> tuple[Tensor, ...]:
    """The tensors of a batch in the order of the example's: keywords may come in another."""
    if not batch.kwargs:
        return batch.tensors
    named = dict(zip(batch.names(model), batch.tensors, strict=True))
    try:
        return tuple(named[name] for name in example.names(model))
    except KeyError as error:
        raise ExporterUsageError(
            f"The calibration inputs lack {error}, which the network was exported with."
        ) from error


def inputs_of(split: Iterable[tuple[Any, Any]], samples: int) -> list[Example]:
    """Inputs of the first ``samples`` samples of batches of (inputs, targets), for ``calibration``.

    Inputs are a tensor, a tuple of arguments, or a dict of keyword arguments.
    """
    found: list[Example] = []
    for inputs, _ in split:
        missing = samples - sum(len(batch.tensors[0]) for batch in found)
        if missing <= 0:
            break
        call = Example((), inputs) if isinstance(inputs, Mapping) else as_example(inputs)
        batched = zip(call.tensors, batch_axes(call.tensors), strict=True)
        found.append(call.with_tensors([value[:missing] if first else value for value, first in batched]))
    return found


def _reader(names: Sequence[str], batches: Sequence[tuple[Tensor, ...]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the base class comes from the package
        def __init__(self) -> None:
            self._left: Iterator[tuple[Tensor, ...]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._left, None)
            if batch is None:
                return None
            return {name: value.detach().cpu().numpy() for name, value in zip(names, batch, strict=True)}

    return Reader()
