"""Whether a network takes what the data's batches have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.data.base import first_batch
from compressor.data.batches import call_of
from compressor.errors import DataError
from compressor.nn.inference import Inference
from compressor.train.layout import copied_to_device
from compressor.train.modes import mode, model_device
from compressor.train.rng import isolated_rng
from compressor.train.splits import call_model
from exporters.example import Example

if TYPE_CHECKING:
    from compressor.data import Data

_LOOKED_AT = 8  # samples


def require_fit(model: nn.Module, example: Example, data: Data) -> None:
    """Run the model on a few samples, unless they are of the form of ``example``, which it has run on.

    Raises:
        DataError: the forward does not take them.
    """
    if _form(call_of(data.example_inputs)) == _form(example):
        return
    inputs, _ = first_batch(data.val, _LOOKED_AT, "validation")
    with isolated_rng(), mode(model, training=False):
        try:
            Inference(model)(lambda: call_model(model, copied_to_device(inputs, model_device(model))))
        except Exception as error:
            raise DataError(
                f"The model was traced with {_described(example.tensors)}, and does not take what the data has, "
                f"{_described(inputs)}: {type(error).__name__}: {error}"
            ) from error


def _form(call: Example) -> list[tuple[torch.dtype, torch.Size]]:
    return [(tensor.dtype, tensor.shape[1:]) for tensor in call.tensors]


def _described(inputs: Any) -> str:
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return ", ".join(f"{str(leaf.dtype).removeprefix('torch.')} of shape {list(leaf.shape)}" for leaf in tensors)
