"""``trim``: a new, smaller model of the same class. The original is not changed; weights are copied where kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.nn.copying import deep_copy
from compressor.nn.generated import computed


def trim(model: nn.Module, architecture: Architecture) -> nn.Module:
    """The model that ``architecture`` describes, with the original's weights.

    The module tree is copied with every tensor already replaced by what is kept of it, so the full weights are never
    copied.

    Raises:
        UnsupportedModelError: the model cannot be copied.
    """
    memo: dict[int, Any] = dict(architecture.stubs(model))
    if (source := computed(model)) is not None:
        memo[id(source)] = None  # what is left is trained as it is
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors.update(model.named_buffers())
    for name, tensor in tensors.items():
        if architecture.removed and architecture.is_removed(name):
            continue
        memo[id(tensor)] = architecture.resized(name, tensor)
    trimmed = deep_copy(model, memo)
    architecture.finish_(trimmed)
    return trimmed
