"""Running an ONNX file on the CPU, for comparing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from exporters.check import Run
from exporters.errors import UnsupportedExportError
from exporters.quiet import first_line


def onnxruntime_run(path: Path) -> Run:
    """A function that runs the file at ``path``. It and this raise :class:`UnsupportedExportError` where that fails."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said once
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise UnsupportedExportError(f"ONNX Runtime cannot load the exported file: {first_line(error)}") from error
    names = [value.name for value in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        feeds = {name: value.contiguous().numpy() for name, value in zip(names, inputs, strict=True)}
        try:
            return list(session.run(None, feeds))
        except Exception as error:  # a shape baked in at trace time shows up here
            raise UnsupportedExportError(f"ONNX Runtime cannot run the exported file: {first_line(error)}") from error

    return run
