"""What a job works on: its data, its model, and the call that the model is traced with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import UsageError
from compressor.jobs.config import JobConfig
from compressor.nn.tensors import resolve_device

if TYPE_CHECKING:
    from torch import nn

    from compressor.data import Data
    from compressor.models import LoadedModel
    from exporters.example import Example


@dataclass(frozen=True)
class Subject:
    """The model of a job, loaded, with ``call``, the inputs that it is traced with, and the data, if there is any."""

    loaded: LoadedModel
    data: Data | None
    call: Example
    asked: dict[str, Any]
    """What the model was loaded with."""

    def fresh(self) -> nn.Module:
        """The model in its own size, once more."""
        from compressor.models import load_model

        return load_model(self.loaded.spec, **self.asked).model


def load_subject(config: JobConfig, grow: int = 1) -> Subject:
    """Load data and model.

    Args:
        grow: so many times as wide and as deep.

    Raises:
        UsageError: they cannot be had, or do not fit each other. WeightsError: the weights do not fit.
    """
    from compressor.data import load_data
    from compressor.data.batches import sample_shape
    from compressor.data.decoding import Loading
    from compressor.models import load_model

    data = None
    if config.data is not None:
        size = config.input_shape[-1] if config.input_shape and len(config.input_shape) > 1 else None
        loading = Loading(config.data_workers, pin=resolve_device(config.device).type == "cuda")
        data = load_data(config.data, image_size=size, loading=loading, model=config.model)
    asked: dict[str, Any] = {
        "weights": config.weights,
        "num_classes": config.num_classes or _implied_outputs(config.model, data),
        "example_shape": config.input_shape or (data.input_shape if data is not None else None),
        "dense": data is not None and data.task.dense,
        "vocabulary": data.vocabulary if data is not None else None,
        "seed": config.seed,
        "trust_factories": config.trust_factories,
    }
    if grow > 1:
        from compressor.pipeline.growth import require_room

        require_room(lambda n: load_model(config.model, **asked, grow=n).model, grow)
    loaded = load_model(config.model, **asked, grow=grow if grow > 1 else None)
    call = data.example if data is not None else loaded.example
    shape = sample_shape(call)
    if config.input_shape is not None and shape != config.input_shape:
        raise UsageError(
            f"--input-shape is {shown(config.input_shape)}, but the inputs of {config.data or config.model} are "
            f"{shown(shape)}; leave the option out, or pass data of that shape."
        )
    return Subject(loaded, data, call, asked)


def available_device(name: str) -> torch.device:
    """The device called ``name``. Raises ``UsageError`` if it is not here."""
    device = resolve_device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, but PyTorch finds no CUDA device here; use --device cpu.")
    return device


def shown(shape: Sequence[int]) -> str:
    """``3x224x224``."""
    return "x".join(str(size) for size in shape)


def _implied_outputs(model: str, data: Data | None) -> int | None:
    """What the head is to give because of the data; a saved network has a head already."""
    from compressor.models import resolve

    return None if data is None or resolve(model)[0] == "folder" else data.outputs
