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
        self._ranks, self._model = ranks, model
        every = [*model.parameters(), *(p for o in optimizers for p in optimizer_parameters(o))]
        self._trained = list({id(p): p for p in every if p.requires_grad}.values())
        self._seen = self._versions()

    def __call__(self, loss: Tensor) -> Tensor:
        """The loss of all parts together, with its gradients in place."""
        ranks = self._ranks
        if ranks.size == 1:
            return loss
        now = self._versions()
        moved = [name for name in now if now[name] != self._seen.get(name)]
        flags = [p.grad is not None for p in self._trained]
        # In one message: which parameters any process has a gradient of, and that all are here.
        wanted = ranks.any_of(flags)
        for parameter, is_wanted in zip(self._trained, wanted, strict=True):
            if is_wanted and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        whole = loss.detach().float().reshape(1).clone()
        ranks.sum_([whole, *(p.grad for p in self._trained if p.grad is not None)])
        if moved:
            ranks.copy_([self._buffers()[name] for name in moved])
        self._seen = self._versions()
        return whole[0]

    def _buffers(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": buffer
            for name, module in self._model.named_modules()
            if not isinstance(module, _BatchNorm)
            for key, buffer in module.named_buffers(recurse=False)
        }

    def _versions(self) -> dict[str, tuple[int, int]]:
        """Which tensor each buffer is, and how often it was changed."""
        if self._ranks.size == 1:
            return {}
        return {name: (id(buffer), buffer._version) for name, buffer in self._buffers().items()}


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the exact bits of tensors, in their order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
