"""Engines for TensorRT and TensorRT-RTX. The two have the same builder API, so there is one path for both.

Networks are strongly typed: the engine computes in the types of the ONNX file, and half precision means a file in half
precision. TensorRT-RTX builds without a GPU, for a compute capability given by name; TensorRT needs the GPU it
builds for.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from exporters.base import (
    CHECK_BATCHES,
    TOLERANCES,
    Availability,
    ExportCheck,
    ExportInfo,
    Inputs,
    package_availability,
    require,
)
from exporters.check import check_all, check_notes
from exporters.errors import ExporterUsageError, UnsupportedExportError
from exporters.example import Example, as_example
from exporters.files import staged, total_bytes
from exporters.formats.onnx_source import OnnxSource, onnx_source
from exporters.formats.tensorrt_engine import Messages, engine_run, load_engine
from exporters.inputs import batch_axes
from exporters.nvidia import gpu_availability

#: Tensor cores round the inputs of fp32 products to 10 bits when TF32 is allowed.
TF32_TOLERANCE = 5e-3


class TensorRTFamily:
    """What TensorRT and TensorRT-RTX have in common; the subclasses name the package."""

    name: str
    suffix: str
    module: str
    package: str
    extra: str
    builds_without_gpu: bool

    def is_available(self) -> Availability:
        """The extra brings the package; whether a GPU is needed depends on the package."""
        found = package_availability(self.module, package=self.package, extra=self.extra)
        return found if self.builds_without_gpu or not found else gpu_availability()

    def export(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        path: Path,
        *,
        precision: str = "fp32",
        onnx_path: Path | None = None,
        calibration: Iterable[Inputs] | None = None,
        min_batch: int = 1,
        opt_batch: int | None = None,
        max_batch: int | None = None,
        compute_capability: str | None = None,
        tf32: bool = False,
        timing_cache: Path | None = None,
        workspace_bytes: int | None = None,
        opset_version: int | None = None,
        dynamic_batch: bool = True,
        batches: Sequence[int] = CHECK_BATCHES,
        tolerance: float | None = None,
        check: bool = True,
        seed: int = 0,
    ) -> ExportInfo:
        """Build an engine and write it to ``path``; where a GPU is at hand it is run and compared with PyTorch.

        Args:
            precision: "fp32", "fp16" or "int8".
            onnx_path: an ONNX file of the same model; used for fp32 and int8. For fp16 a file in half precision is
                made from the model.
            calibration: for int8, batches of inputs that the model is quantised with (see
            ``exporters.formats.onnx_int8``);
                without them ``onnx_path`` must be quantised already, with QuantizeLinear nodes.
            min_batch, opt_batch, max_batch: the range of batch sizes the engine accepts and the one it is tuned for;
                by default the example's, and up to the larger of 8 and that.
            compute_capability: GPU generation to build for, such as "8.9" or "12.0" (TensorRT-RTX only); ``None``
                leaves it to the library.
            tf32: allow the faster, less exact products of tensor cores in fp32.
            timing_cache: file that keeps kernel timings from one build to the next.
            workspace_bytes: limit of scratch memory.

        Raises:
            MissingPackageError: the package, or the GPU it needs, is missing.
            UnsupportedExportError: the parser or the builder refuses the network; the message has its reason.
        """
        require(self.is_available(), f"The {self.name} exporter")
        if precision not in ("fp32", "fp16", "int8"):
            raise ExporterUsageError(f"{self.name} engines compute in fp32, fp16 or int8, not {precision!r}.")
        if precision == "int8" and onnx_path is None and calibration is None:
            raise ExporterUsageError(
                f"An int8 {self.name} engine needs calibration inputs, or onnx_path with a quantised ONNX file."
            )
        started = time.perf_counter()
        path = Path(path)
        example = as_example(example_inputs)
        notes: list[str] = []
        checks: tuple[ExportCheck, ...] = ()
        half = precision == "fp16"
        limit = tolerance if tolerance is not None else TF32_TOLERANCE if tf32 and not half else TOLERANCES[precision]
        with ExitStack() as stack:
            if precision == "int8" and calibration is not None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                onnx_path = _quantised(model, example, folder / "int8.onnx", calibration, onnx_path, dynamic_batch)
            source = stack.enter_context(
                onnx_source(
                    model,
                    example,
                    None if half else onnx_path,
                    half=half,
                    dynamic_batch=dynamic_batch,
                    opset_version=opset_version,
                )
            )
            notes += source.notes
            sizes = _batch_range(min_batch, opt_batch or _batch(example), max_batch)
            runtime = importlib.import_module(self.module)
            with staged(path) as staging:
                details = self._build(
                    runtime,
                    source,
                    staging,
                    sizes,
                    example.tensors,
                    compute_capability,
                    tf32,
                    timing_cache,
                    workspace_bytes,
                )
                found = gpu_availability()
                if check and found:
                    engine = load_engine(runtime, staging)
                    usable = [size for size in batches if sizes[0] <= size <= sizes[2]]
                    checks = check_all(
                        model,
                        example,
                        engine_run(engine),
                        batches=usable if source.dynamic_batch else [None],
                        tolerance=limit,
                        seed=seed,
                        what=f"The {self.name} engine",
                    )
                elif check:
                    notes.append(f"The engine was built but not run: {found.reason}.")
        return ExportInfo(
            format=self.name,
            path=path,
            files=(path,),
            bytes=total_bytes((path,)),
            precision=precision,
            dynamic_batch=source.dynamic_batch,
            checks=checks,
            tolerance=limit if checks else None,
            checked_with=f"{self.name} {runtime.__version__}" if checks else None,
            opset_version=source.opset_version,
            seconds=time.perf_counter() - started,
            notes=(*notes, *check_notes(checks)),
            details={"builder": f"{self.name} {runtime.__version__}", **details},
        )

    def _build(
        self,
        runtime: Any,
        source: OnnxSource,
        path: Path,
        sizes: tuple[int, int, int],
        example: Sequence[Tensor],
        compute_capability: str | None,
        tf32: bool,
        timing_cache: Path | None,
        workspace_bytes: int | None,
    ) -> dict[str, Any]:
        """Parse, build, write; returns what is worth knowing about the engine."""
        messages = Messages.of(runtime)
        try:
            builder = runtime.Builder(messages.logger)
        except (TypeError, RuntimeError) as error:  # the binding gives a null pointer when no device answers
            raise UnsupportedExportError(f"{self.name} cannot start here: {messages.last_error(error)}") from error
        network = builder.create_network(1 << int(runtime.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = runtime.OnnxParser(network, messages.logger)
        if not parser.parse_from_file(str(source.path)):
            reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            reason = reasons[0].splitlines()[0] if reasons else messages.last_error()
            raise UnsupportedExportError(f"{self.name} cannot parse the network: {reason}")
        config = builder.create_builder_config()
        config.profiling_verbosity = runtime.ProfilingVerbosity.DETAILED
        if not tf32:
            config.clear_flag(runtime.BuilderFlag.TF32)
        if workspace_bytes is not None:
            config.set_memory_pool_limit(runtime.MemoryPoolType.WORKSPACE, workspace_bytes)
        if compute_capability is not None:
            self._target(runtime, config, compute_capability)
        if any(source.opened):
            _close(network, example)
        if source.dynamic_batch:
            config.add_optimization_profile(_profile(builder, network, sizes))
        cache = _read_timing_cache(config, timing_cache)
        layers = int(network.num_layers)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise UnsupportedExportError(f"{self.name} cannot build the network: {messages.last_error()}")
        path.write_bytes(memoryview(plan))
        if cache is not None and timing_cache is not None:
            with staged(Path(timing_cache)) as staging:
                staging.write_bytes(memoryview(cache.serialize()))
        return {
            "layers": layers,
            "engine_bytes": int(plan.nbytes),
            "compute_capability": compute_capability or "default",
            "batch_range": list(sizes) if source.dynamic_batch else None,
        }

    def _target(self, runtime: Any, config: Any, compute_capability: str) -> None:
        wanted = "SM" + compute_capability.upper().removeprefix("SM").replace(".", "")
        kinds = getattr(runtime, "ComputeCapability", None)
        if kinds is None:
            raise ExporterUsageError(f"{self.name} builds for the GPU of this machine; leave compute_capability out.")
        names = sorted(name for name in kinds.__members__ if name.startswith("SM"))
        if wanted not in names:
            raise ExporterUsageError(
                f"{self.name} does not build for {compute_capability!r}; choose from "
                f"{', '.join(f'{name[2:-1]}.{name[-1]}' for name in names)}."
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(kinds.__members__[wanted], 0)


def _quantised(
    model: nn.Module,
    example: Example,
    path: Path,
    calibration: Iterable[Inputs],
    onnx_path: Path | None,
    dynamic_batch: bool,
) -> Path:
    """An int8 ONNX file as TensorRT reads it: biases stay as they are."""
    from exporters.formats.onnx_int8 import OnnxInt8Exporter

    options: dict[str, Any] = {"calibration": calibration, "onnx_path": onnx_path, "dynamic_batch": dynamic_batch}
    return OnnxInt8Exporter().export(model, example, path, quantise_bias=False, check=False, **options).path


def _batch(example: Example) -> int:
    return int(example.tensors[0].shape[0]) if any(batch_axes(example.tensors)) else 1


def _close(network: Any, example: Sequence[Tensor]) -> None:
    """Give open sizes besides the batch those of the example: an engine is tuned for them."""
    for index in range(network.num_inputs):
        tensor, given = network.get_input(index), example[index].shape
        tensor.shape = tuple(given[d] if d and size == -1 else size for d, size in enumerate(tuple(tensor.shape)))


def _batch_range(low: int, best: int, high: int | None) -> tuple[int, int, int]:
    top = max(8, best) if high is None else high
    if not 1 <= low <= best <= top:
        raise ExporterUsageError(f"Batch sizes must rise from 1: min {low}, opt {best}, max {top}.")
    return low, best, top


def _profile(builder: Any, network: Any, sizes: tuple[int, int, int]) -> Any:
    """One optimisation profile: axis 0 of every input that has it open."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise UnsupportedExportError(f"The input {tensor.name!r} has open sizes besides the batch: {shape}.")
        if shape and shape[0] == -1:
            profile.set_shape(tensor.name, *((size, *shape[1:]) for size in sizes))
    return profile


def _read_timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    config.set_timing_cache(cache, False)  # False: refuse timings of another device
    return cache
