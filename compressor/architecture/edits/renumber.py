"""Bring positions up to date that a buffer holds along an axis that got shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressor.architecture.edits.base import Edit, Work


@dataclass(frozen=True)
class Renumber(Edit):
    """``kept`` has the positions that are left, ascending; the buffer's entries, all of them among these, become their
    ranks."""

    buffer: str
    kept: list[int]

    kind: ClassVar[str] = "renumber"

    @property
    def tensor(self) -> str:
        return self.buffer

    def check(self, work: Work) -> None:
        tensor = work.tensors.get(self.buffer)
        if tensor is None or tensor.dim() != 1 or tensor.is_floating_point() or tensor.is_complex():
            self.refuse("the model has no such row of positions")
        if sorted(tensor.tolist()) != self.kept:
            self.refuse("the positions kept are not those that the buffer's kept entries point at")

    def apply_(self, work: Work) -> None:
        work.put_tensor_(self.buffer, self.sliced(self.buffer, work.tensors[self.buffer]))

    def sliced(self, name: str, tensor: Tensor) -> Tensor:
        if name != self.buffer:
            return tensor
        positions = torch.tensor(self.kept, device=tensor.device)
        return torch.searchsorted(positions, tensor.to(positions.dtype)).to(tensor.dtype)

    def restored(self, tensor: Tensor) -> Tensor:
        """The positions that ranks stand for."""
        return torch.tensor(self.kept, device=tensor.device)[tensor.long()].to(tensor.dtype)
