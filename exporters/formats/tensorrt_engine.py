"""Loading and running TensorRT and TensorRT-RTX engines on torch's CUDA tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporters.check import Run
from exporters.errors import ExporterUsageError, UnsupportedExportError


@dataclass
class Messages:
    """Collects what the library logs, instead of printing it."""

    logger: Any = None
    errors: list[str] = field(default_factory=list)

    @staticmethod
    def of(runtime: Any) -> Messages:
        """A collector for ``runtime``, the imported package."""
        messages = Messages()
        severe = (runtime.ILogger.Severity.ERROR, runtime.ILogger.Severity.INTERNAL_ERROR)

        class Logger(runtime.ILogger):  # type: ignore[misc]  # the base class comes from the package
            def __init__(self) -> None:
                runtime.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in severe:
                    messages.errors.append(message)

        messages.logger = Logger()
        return messages

    def last_error(self, fallback: object = "no reason given") -> str:
        """The first line of the first error, which is the cause of those after it."""
        return (self.errors[0] if self.errors else str(fallback)).splitlines()[0]


class Engine:
    """An engine with one execution context.

    Keeps the library's objects alive in the order in which they need each other.
    """

    def __init__(self, runtime: Any, plan: bytes, origin: str) -> None:
        self.messages = Messages.of(runtime)
        self._deserialiser = runtime.Runtime(self.messages.logger)
        self.engine = self._deserialiser.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise UnsupportedExportError(f"{origin} cannot be loaded here: {self.messages.last_error()}")
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        is_input = {name: self.engine.get_tensor_mode(name) == runtime.TensorIOMode.INPUT for name in names}
        self.inputs = [name for name in names if is_input[name]]
        self.outputs = [name for name in names if not is_input[name]]
        self._types = {name: getattr(torch, np.dtype(runtime.nptype(self._dtype(name))).name) for name in names}
        self._held: list[Tensor] = []

    def _dtype(self, name: str) -> Any:
        return self.engine.get_tensor_dtype(name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every input; -1 where a size is open."""
        return {name: tuple(self.engine.get_tensor_shape(name)) for name in self.inputs}

    def dtype(self, name: str) -> torch.dtype:
        """Type of an input or output."""
        found: torch.dtype = self._types[name]
        return found

    def bind(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Set CUDA tensors as inputs and allocate the outputs, which are returned; :meth:`enqueue` fills them."""
        if len(inputs) != len(self.inputs):
            raise ExporterUsageError(f"The engine has {len(self.inputs)} inputs, {len(inputs)} were given.")
        self._held = [value.to(self._types[n]).contiguous() for n, value in zip(self.inputs, inputs, strict=True)]
        for name, value in zip(self.inputs, self._held, strict=True):
            if not self.context.set_input_shape(name, tuple(value.shape)):
                raise ExporterUsageError(
                    f"The engine does not take {tuple(value.shape)} for {name!r}: {self.messages.last_error()}"
                )
            self.context.set_tensor_address(name, value.data_ptr())
        outputs = []
        for name in self.outputs:
            shape = tuple(self.context.get_tensor_shape(name))
            value = torch.empty(shape, dtype=self._types[name], device=self._held[0].device)
            self.context.set_tensor_address(name, value.data_ptr())
            outputs.append(value)
        self._held += outputs
        return outputs

    def enqueue(self, stream: torch.cuda.Stream) -> None:
        """Issue one run on ``stream``; returns before it is done."""
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise UnsupportedExportError(f"The engine could not be run: {self.messages.last_error()}")


def load_engine(runtime: Any, path: Path) -> Engine:
    """Read an engine file; it must come from the same library version and fit the GPU."""
    return Engine(runtime, path.read_bytes(), path.name)


def engine_run(engine: Engine) -> Run:
    """A function that runs an engine, for comparing."""

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        # The default stream would make the library synchronise around every run.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            outputs = engine.bind([value.cuda() for value in inputs])
            engine.enqueue(stream)
        stream.synchronize()
        return [value.cpu().numpy() for value in outputs]

    return run
