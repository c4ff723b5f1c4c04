"""OpenVINO on the CPU, in its latency mode."""

from __future__ import annotations

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
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.feeds import AnyArray, Feeds, made_up
from profilers.kernels import KernelTimes, openvino_kernels
from profilers.onnx_input import like_example, onnx_file

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs


class OpenVinoCpu:
    """Times IR and ONNX files, or modules exported to ONNX, with shapes fixed as they are on a device."""

    name = "openvino-cpu"

    def is_available(self) -> Availability:
        """The extra ``openvino`` brings the package."""
        return package_availability("openvino", package="openvino", extra="openvino")

    def load(
        self,
        model: nn.Module | str | Path,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        precision: str = "fp32",
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`.

        Args:
            precision: what the CPU computes in: "fp32", or "bf16" where the processor has it (left alone, OpenVINO
                would take that by itself and be compared with a network in fp32).
            options: further OpenVINO properties by name.
        """
        require(self)
        import openvino
        from openvino import properties

        types = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
        if precision not in types:
            raise ProfilerUsageError(f"{self.name} computes in fp32 or bf16, not {precision!r}.")
        count = threads or default_threads()
        core = openvino.Core()
        settings = {
            properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
            properties.hint.inference_precision: types[precision],
            properties.inference_num_threads: count,
            properties.num_streams: 1,
            **options,
        }
        with onnx_file(model, example_inputs) as path:
            try:
                network = core.read_model(str(path))
            except RuntimeError as error:
                raise ProfilerUsageError(f"{path} is no IR or ONNX file that OpenVINO can read.") from error
            inputs = _inputs(network, path, example_inputs, batch, seed)
            try:
                shapes = [list(value.shape) for value in inputs]
                network.reshape(dict(zip(range(len(shapes)), shapes, strict=True)))
                compiled = core.compile_model(network, "CPU", settings)
                request = compiled.create_infer_request()
                for index, value in enumerate(inputs):
                    request.set_input_tensor(index, openvino.Tensor(value, shared_memory=False))
                request.infer()
            except RuntimeError as error:
                raise RefusedError(f"OpenVINO refuses {path.name}: {_reason(error)}") from error
        quantised = any(op.get_type_name() == "FakeQuantize" for op in network.get_ops())
        info = RunnerInfo(
            runtime=self.name,
            version=openvino.get_version().split("-")[0],
            device=core.get_property("CPU", "FULL_DEVICE_NAME"),
            precision="int8" if quantised else precision,
            threads=count,
            batch=int(inputs[0].shape[0]) if inputs and inputs[0].ndim else 1,
        )
        return WallClockRunner(info, request.infer)

    def kernels(self, path: Path, *, threads: int, batch: int, runs: int, seed: int = 0) -> KernelTimes:
        """See :meth:`profilers.kernels.KernelRuntime.kernels`; computed in fp32."""
        require(self)
        import openvino
        from openvino import properties

        settings = {
            properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
            properties.hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: threads,
            properties.num_streams: 1,
            properties.enable_profiling: True,
        }
        try:
            network = openvino.Core().read_model(str(path))
            inputs = _inputs(network, path, None, batch, seed)
            network.reshape(dict(enumerate(list(value.shape) for value in inputs)))
            compiled = openvino.Core().compile_model(network, "CPU", settings)
            request = compiled.create_infer_request()
            for index, value in enumerate(inputs):
                request.set_input_tensor(index, openvino.Tensor(value, shared_memory=False))
            return openvino_kernels(compiled, request, runs)
        except RuntimeError as error:
            raise RefusedError(f"OpenVINO refuses {path.name}: {_reason(error)}") from error


def _inputs(
    network: Any, path: Path, example_inputs: Inputs | Feeds | None, batch: int | None, seed: int
) -> list[AnyArray]:
    """Random inputs that fit the network, from the example or from its own shapes."""
    if example_inputs is None:
        shapes, types = [], []
        for port in network.inputs:
            shape = port.get_partial_shape()
            sizes = [dim.get_length() if dim.is_static else 0 for dim in shape]
            if 0 in sizes[1:]:
                raise ProfilerUsageError(f"{path.name} leaves sizes of its input open: {shape}; pass example inputs.")
            if sizes:
                sizes[0] = sizes[0] or batch or 1
            shapes.append(sizes)
            types.append(port.get_element_type().to_dtype().name)
        values = made_up(shapes, types, batch, seed=seed)
    elif isinstance(example_inputs, Feeds):
        names = [port.get_any_name() for port in network.inputs]
        values = [example_inputs.arrays[name] for name in names if name in example_inputs.arrays]
    else:
        values = like_example(example_inputs, batch, seed)
    if len(values) != len(network.inputs):
        raise ProfilerUsageError(f"{path.name} has {len(network.inputs)} inputs, the example {len(values)}.")
    for port, value in zip(network.inputs, values, strict=True):
        for axis, dim in enumerate(port.get_partial_shape()):
            if dim.is_static and dim.get_length() != value.shape[axis]:
                raise ProfilerUsageError(
                    f"{path.name} wants size {dim.get_length()} along axis {axis} of its input, not "
                    f"{value.shape[axis]}; choose that size or export with a dynamic batch."
                )
    return values


def _reason(error: RuntimeError) -> str:
    """OpenVINO's messages begin with places in its own source; the last line is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
