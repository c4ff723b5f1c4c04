"""The gradients of masks in a loop that the program does not run: scaled, accumulated, spread over processes, lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn.sharded import own_part
from compressor.process.ranks import Ranks

ROUNDING = 1e-3  # of a power of two, in shares of a loss that are added up
SAMPLE = 3  # weights so many of which are looked at for whether they were moved


class MaskGradients:
    """Of the masks ``parameters``, in a loop that trains ``weights``."""

    def __init__(self, parameters: Sequence[nn.Parameter], weights: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.weights = list(weights)
        self._weight = 0.0  # of the cost in all losses of this step
        self._had = False
        self._scaled = False
        self._known: list[tuple[int, int]] = []  # gradients as a backward left them
        self._at_begin: list[tuple[int, int]] = []  # gradients as the backward that runs found them
        self._backwards = 0  # through the model, in this step
        self._reached = False  # whether one of them, or the loop itself, gave the masks a gradient
        self._before: tuple[list[int], list[Tensor]] | None = None

    def watched(self, penalty: Tensor) -> Tensor:
        """``penalty``, whose gradient tells by how much the loss was scaled."""
        found: Tensor = _Watched.apply(penalty, self)
        return found

    def note(self, gradient: float) -> None:
        """The gradient of the penalty in one backward."""
        self._weight += gradient
        self._reached |= self._known != self._now()
        torch.autograd.Variable._execution_engine.queue_callback(self._know)

    def forward_begins(self) -> None:
        """Remember the weights that the step starts from, where a scaler may leave it out."""
        if self._scaled and self._before is None:
            smallest = sorted(self.weights, key=torch.Tensor.numel)[:SAMPLE]
            self._before = [p._version for p in self.weights], [own_part(p.detach()).clone() for p in smallest]

    def backward_begins(self) -> None:
        """Gradients of weights that the loop has thrown away since they were there throw away those of masks, too."""
        if self._had and not self._weights_have():
            self.drop()
        self._backwards += 1
        self._at_begin = self._now()

    def backward_ends(self) -> None:
        self._had = self._weights_have()
        self._reached |= self._at_begin != self._now()
        self._know()

    def untaught(self) -> str | None:
        """Why the loss had nothing to say about the masks in this step; None if it had, as far as one can tell."""
        if not self.parameters:
            return None
        if not self._backwards and not self._now():
            return (
                "session.step() came before any backward of its step; call it after loss.backward() and "
                "optimizer.step(), once for both."
            )
        if self._backwards and not self._reached and self._known == self._now():
            return (
                "Masks had no gradient of the loss, so the cost alone moves them: what took the gradients of the "
                "weights (torch.autograd.grad, backward(inputs=...)) has to take, and set, those of "
                "session.parameters(), too."
            )
        return None

    def drop(self) -> None:
        """Forget all gradients of masks."""
        for parameter in self.parameters:
            parameter.grad = None
        self._weight, self._had, self._known = 0.0, False, []

    def end_step(self) -> None:
        self.drop()
        self._backwards, self._reached = 0, False
        self._before = None

    def settle(self, ranks: Ranks) -> str | None:
        """Bring the gradients to the scale of the loss, and to their mean over processes.

        Returns:
            Why the masks cannot move by them; None if they can.
        """
        scale = _scale(self._weight)
        self._scaled = scale != 1.0 or not math.isfinite(self._weight)
        if self._known != self._now():
            scale = 1.0  # the loop has brought them to a scale of its own
        lost = not math.isfinite(self._weight) or self._left_out()
        gradients = [p.grad for p in self.parameters]
        if scale != 1.0:
            gradients = [None if g is None else g / scale for g in gradients]
        if lost:  # on all processes, if on one
            gradients = [torch.full_like(p, math.nan) for p in self.parameters]
        if ranks.size > 1:
            gradients = ranks.mean(gradients, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        found = [torch.isfinite(g).all() for g in gradients if g is not None]
        if found and not bool(torch.stack(found).all()):
            return "the step of the weights was left out" if lost else "gradients of the masks are not finite"
        return None

    def _know(self) -> None:
        self._known = self._now()

    def _now(self) -> list[tuple[int, int]]:
        """Which gradients there are, and how often each was changed."""
        return [(i, p.grad._version) for i, p in enumerate(self.parameters) if p.grad is not None]

    def _weights_have(self) -> bool:
        return any(p.grad is not None for p in self.weights)

    def _left_out(self) -> bool:
        """Whether a scaler found gradients that are not finite and left out the step of the weights."""
        if not self._scaled:
            return False
        if self._before is not None:
            versions, values = self._before
            smallest = sorted(self.weights, key=torch.Tensor.numel)[:SAMPLE]
            moved = any(p._version != n for p, n in zip(self.weights, versions, strict=True))
            if moved or any(
                not torch.equal(own_part(p.detach()), old) for p, old in zip(smallest, values, strict=True)
            ):
                return False
        gradients = [own_part(p.grad) for p in self.weights if p.grad is not None]
        if not gradients:
            return self._before is not None
        return not bool(torch.stack([torch.isfinite(g).all() for g in gradients]).all())


def _scale(weight: float) -> float:
    """The power of two that a loss was scaled by, from what its penalty weighs. Divisions by it are exact; what is left
    is the loop's own weight, such as a share per part of a batch. Shares add up to one but for rounding."""
    return 2.0 ** math.floor(math.log2(weight) + ROUNDING) if math.isfinite(weight) and weight >= 2 else 1.0


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, penalty: Tensor, owner: MaskGradients) -> Tensor:
        ctx.owner = owner
        return penalty.view_as(penalty)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ctx.owner.note(float(gradients[0]))
        return gradients[0], None
