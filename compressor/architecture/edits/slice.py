"""Keep a part of a parameter or buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from compressor.architecture.edits.base import Edit, Work
from compressor.errors import UsageError
from compressor.nn.tensors import laid_out_like
from compressor.storage.codec import check


@dataclass(frozen=True)
class Slice(Edit):
    """``kept`` has, by axis, the indices that stay, ascending."""

    parameter: str
    kept: Mapping[int, list[int]]

    kind: ClassVar[str] = "slice"

    @property
    def tensor(self) -> str:
        return self.parameter

    def check(self, work: Work) -> None:
        tensor = work.tensors.get(self.parameter)
        if tensor is None:
            self.refuse("the model has no such parameter")
        for axis, kept in self.kept.items():
            if not 0 <= axis < tensor.dim():
                self.refuse(f"it has {tensor.dim()} axes, and axis {axis} is named")
            length = tensor.shape[axis]
            if kept and not (kept[0] >= 0 and kept[-1] < length and all(a < b for a, b in pairwise(kept))):
                self.refuse(f"indices along axis {axis} must ascend within 0 to {length - 1}")

    def apply_(self, work: Work) -> None:
        work.put_tensor_(self.parameter, self._resized(work.tensors[self.parameter]))
        if (owner := work.modules.get(self.parameter.rpartition(".")[0])) is not None:
            refresh_flat_weights_(owner)

    def sliced(self, name: str, tensor: Tensor) -> Tensor:
        if name == self.parameter:
            for axis, indices in self.kept.items():
                tensor = tensor.index_select(axis, torch.tensor(indices, device=tensor.device))
        return tensor

    def copied(self, work: Work) -> dict[int, Any]:
        tensor = work.tensors[self.parameter]
        return {id(tensor): self._resized(tensor)}

    def finish_(self, copy: Work) -> None:
        """Nothing is left to do."""

    def _resized(self, tensor: Tensor) -> Tensor:
        return like(tensor, self.sliced(self.parameter, tensor.detach()))

    def to_json(self) -> dict[str, Any]:
        return {"edit": self.kind, "parameter": self.parameter, "kept": {str(a): list(i) for a, i in self.kept.items()}}

    @classmethod
    def from_json(cls, document: dict[str, Any], place: str) -> Self:
        name = check(str, document.get("parameter"), f"{place}.parameter")
        kept = check(dict[str, list[int]], document.get("kept"), f"{place}.kept")
        return cls(name, axes_of(kept, f"{place}.kept"))


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """``value`` in the place of ``tensor``: laid out in memory likewise (channels last, say); a parameter stays one and
    keeps ``requires_grad``."""
    laid = laid_out_like(tensor, value.clone() if value.data_ptr() == tensor.data_ptr() else value)
    return nn.Parameter(laid, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else laid


def axes_of(kept: Mapping[str, list[int]], place: str) -> dict[int, list[int]]:
    """Axes as numbers. Raises ``UsageError`` for a key that is none."""
    for axis in kept:
        if not axis.isdecimal() or len(axis) > 2:
            raise UsageError(f"{place} has the key {axis[:20]!r}; expected an axis.")
    return {int(axis): indices for axis, indices in kept.items()}


def refresh_flat_weights_(module: nn.Module) -> None:
    """Recurrent modules keep a list of their weights."""
    if isinstance(module, nn.RNNBase):
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
