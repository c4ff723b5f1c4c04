"""Weights that are not trained now, in another memory than the accelerator's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Shelf:
    """All weight sets but the first and the one in use lie on the CPU, with what the optimizer remembers of them.

    Tensors are moved in place, so that all networks over a weight set and the optimizer see them where they are.

    Args:
        sets: the first is the model itself and stays where it is.
    """

    def __init__(self, sets: Sequence[nn.Module], device: torch.device) -> None:
        self._sets, self._device = sets, device
        self._optimizer: Optimizer | None = None
        self._out = 0
        for number in range(1, len(sets)):
            self._move(number, torch.device("cpu"))

    def follow(self, optimizer: Optimizer) -> None:
        """Move what this optimizer remembers of the weights, too."""
        self._optimizer = optimizer

    def take(self, number: int) -> None:
        """Bring a weight set to the device, and put the one away that was there."""
        if number in (0, self._out):
            return
        if self._out:
            self._move(self._out, torch.device("cpu"))
        self._move(number, self._device)
        self._out = number

    def _move(self, number: int, where: torch.device) -> None:
        each = self._sets[number]
        with torch.no_grad():
            for tensor in (*each.parameters(), *each.buffers()):
                tensor.data = moved(tensor.data, where)
                if tensor.grad is not None:
                    tensor.grad = moved(tensor.grad, where)
                state = {} if self._optimizer is None else self._optimizer.state.get(tensor, {})
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape == tensor.shape:
                        state[name] = moved(value, where)


def moved(tensor: Tensor, where: torch.device) -> Tensor:
    """A tensor on another device."""
    return tensor.to(where)
