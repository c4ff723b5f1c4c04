"""The compressed network in int8: quantised with the job's data, evaluated and timed beside single precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.data import Data, Split
    from compressor.data.task import Task
    from compressor.report import Quantisation
    from compressor.train import Metrics
    from exporters.base import ExportInfo
    from exporters.example import Example
#: Samples that ranges are taken from; more change little.
CALIBRATION_SAMPLES = 256
_BATCH = 32


class OnnxNetwork(nn.Module):
    """An ONNX file as a module, run by ONNX Runtime on the CPU: what evaluates a model evaluates the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx

        from exporters.formats.onnx_runtime import onnxruntime_run

        self._run = onnxruntime_run(path)
        self._names = [value.name for value in onnx.load(str(path), load_external_data=False).graph.input]

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """The file's first output, for its inputs in order, or by their names."""
        given = (*inputs, *(named[name] for name in self._names if name in named))
        return torch.from_numpy(self._run(tuple(value.contiguous().cpu() for value in given))[0])


def calibration_inputs(data: Data | None, samples: int = CALIBRATION_SAMPLES) -> list[Example]:
    """Inputs to quantise with, from the training data. Raises ``UsageError`` without data."""
    from exporters.formats.onnx_int8 import inputs_of

    if data is None:
        raise UsageError("Int8 takes its ranges from data, and there is none; pass --data.")
    return inputs_of(data.train.batches(_BATCH, shuffle_seed=0), samples)


def evaluate_file(path: Path, split: Split, task: Task, batch_size: int | None = None) -> Metrics:
    """What the task's metric says of an ONNX file."""
    from compressor.train import evaluate

    return evaluate(OnnxNetwork(path), split, batch_size, torch.device("cpu"), task=task)


def describe(single: Path, info: ExportInfo, data: Data | None, *, threads: int | None, seconds: float) -> Quantisation:
    """Both files evaluated on the test data (validation data if there is none) and timed in turn.

    Args:
        single: the network as an ONNX file in single precision; ``info`` is about the quantised one.
        seconds: time for timing; 0 leaves it out.
    """
    from compressor.deploy.timing import DEFAULT_TARGET, bench
    from compressor.report import PairedTiming, Quantisation
    from compressor.train.objectives.objective import TOP_1

    before = after = samples = None
    metric = TOP_1
    name = "test" if data is not None and data.test is not None else "val"
    if data is not None:
        split = data.test if data.test is not None else data.val
        size = None if info.dynamic_batch else 1
        one, two = (evaluate_file(path, split, data.task, size) for path in (single, info.path))
        before, after, samples, metric = one.score, two.score, len(split), one.metric
    latency = None
    if seconds:
        found = bench(
            {"single": single, "int8": info.path}, target=DEFAULT_TARGET, batch=1, threads=threads, seconds=seconds
        )
        latency = PairedTiming.from_comparison(found, "single", "int8")
    return Quantisation(
        before=before,
        after=after,
        split=name,
        samples=samples,
        bytes_before=single.stat().st_size,
        bytes_after=info.bytes,
        calibration_samples=int(info.details["calibration_samples"]),
        latency=latency,
        metric=metric.name,
        lower_is_better=metric.lower_is_better,
    )
