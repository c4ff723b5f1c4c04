"""The gradients of several processes as those of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from compressor.process.ranks import Ranks
from compressor.train.optim import optimizer_parameters


class Reduction:
    """Sums the gradients of all that is trained, and the loss, after every step; alone it does nothing.

    Buffers that a forward moved and that are no statistics of batches (those are of the whole batch anyway) become
    those of the first process, as in ``DistributedDataParallel``.
    """

    def __init__(self, ranks: Ranks, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
        self._ranks = ranks
        every = [*model.parameters(), *(p for o in optimizers for p in optimizer_parameters(o))]
        self._trained = list({id(p): p for p in every if p.requires_grad}.values())
        self._holders = [m for m in model.modules() if m._buffers and not isinstance(m, _BatchNorm)]
        self._seen = self._versions()

    def __call__(self, loss: Tensor) -> Tensor:
        """The loss of all parts together, with its gradients in place."""
        ranks = self._ranks
        if ranks.size == 1:
            return loss
        buffers, now = self._buffers(), self._versions()
        known = self._seen if len(self._seen) == len(now) else [None] * len(now)
        moved = [mine != before for mine, before in zip(now, known, strict=True)]
        # Which gradients any process has, and which buffers moved in any; and all are here.
        flags = ranks.any_of([*(p.grad is not None for p in self._trained), *moved])
        for parameter, is_wanted in zip(self._trained, flags, strict=False):
            if is_wanted and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        whole = loss.detach().float().reshape(1).clone()
        ranks.sum_([whole, *(p.grad for p in self._trained if p.grad is not None)])
        ranks.copy_([buffer for buffer, is_moved in zip(buffers, flags[len(self._trained) :], strict=True) if is_moved])
        self._seen = self._versions()
        return whole[0]

    def _buffers(self) -> list[Tensor]:
        return [buffer for module in self._holders for buffer in module._buffers.values() if buffer is not None]

    def _versions(self) -> list[tuple[int, int]]:
        """Which tensor each buffer is, and how often it was changed."""
        return [(id(buffer), buffer._version) for buffer in self._buffers()] if self._ranks.size > 1 else []


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the exact bits of tensors, in their order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
