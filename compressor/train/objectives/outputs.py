"""What a model returns: the one tensor that the loss, the accuracy and the teacher are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from compressor.errors import TrainingError

_NAMES = ("logits", "out")


def primary_output(outputs: Any) -> Tensor:
    """The main tensor of a model's outputs.

    A tensor is itself. In a dict, dataclass or named tuple it is ``logits`` or ``out`` if there is one (GoogLeNet's
    and Inception's auxiliary outputs, torchvision's segmentation models, transformers' outputs), else the first
    tensor; in a tuple or list the first tensor.

    Raises:
        TrainingError: there is no tensor in it.
    """
    found = _find(outputs)
    if found is None:
        raise TrainingError(
            f"The model returned {type(outputs).__name__} with no tensor in it; expected logits, or a tuple or dict of "
            "them. Pass a loss_fn(outputs, targets) that knows what to do."
        )
    return found


def _find(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Tensor):
        return outputs
    named = _parts(outputs)
    for value in (*(named[name] for name in _NAMES if name in named), *named.values()):
        if (tensor := _find(value)) is not None:
            return tensor
    return None


def _parts(outputs: Any) -> Mapping[str, Any]:
    """What a structure of outputs holds, by name; nothing of what is none."""
    if isinstance(outputs, Mapping):
        return outputs
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {item.name: getattr(outputs, item.name) for item in dataclasses.fields(outputs)}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return dict(zip(outputs._fields, outputs, strict=True))
    if isinstance(outputs, tuple | list):
        return {str(index): item for index, item in enumerate(outputs)}
    return {}


def differentiable_outputs(outputs: Any) -> list[Tensor]:
    """The tensors of a model's outputs that gradients come from: ``logits`` or ``out`` alone if there is one, as in
    ``primary_output``, else all."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.requires_grad and outputs.is_floating_point() and outputs.numel() else []
    parts = _parts(outputs)
    named = next((parts[name] for name in _NAMES if isinstance(parts.get(name), Tensor)), None)
    if named is not None:
        return differentiable_outputs(named)
    return [tensor for part in parts.values() for tensor in differentiable_outputs(part)]
