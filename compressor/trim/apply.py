"""``trim``: a new, smaller model of the same class. The original is not changed; weights are copied where kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Work
from compressor.architecture.edits.slice import like, refresh_flat_weights_
from compressor.nn.copying import deep_copy
from compressor.nn.generated import computed


def trim(model: nn.Module, architecture: Architecture) -> nn.Module:
    """The model that ``architecture`` describes, with the original's weights.

    The module tree is copied with every tensor already replaced by what is kept of it, so the full weights are never
    copied.

    Raises:
        UnsupportedModelError: the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    work = Work(model)
    for edit in architecture.edits:
        memo.update(edit.copied(work))
    if (source := computed(model)) is not None:
        memo[id(source)] = None  # what is left is trained as it is
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors.update(model.named_buffers())
    for name, tensor in tensors.items():
        if id(tensor) not in memo and not architecture.is_removed(name):
            memo[id(tensor)] = like(tensor, tensor.detach())
    trimmed = deep_copy(model, memo)
    copy = Work(trimmed)
    for edit in architecture.edits:
        edit.finish_(copy)
    for module in trimmed.modules():
        refresh_flat_weights_(module)
    return trimmed
