"""Would a mistake have been noticed? Which of the units that are kept the output depends on.

A check on inputs that leave a unit dead (behind a rectifier, a closed gate, a saturated sigmoid) says nothing of it. So
the gradient of the outputs, in random directions, is taken with respect to the trimmed network's weights: a unit is
seen if changing what carries it by its usual size changes the outputs by far more than what a check lets pass. What
decides without a gradient (the largest, a comparison, a rounding) is watched where it is handed its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from compressor.arrays import BoolArray, UnitMask
from compressor.graph.graph import Graph, Parameter

_DECIDING = {
    *("argmax", "argmin", "argsort", "topk", "sort", "gt", "lt", "ge", "le", "eq", "ne", "__gt__", "__lt__", "__ge__"),
    *(
        "__le__",
        "__eq__",
        "__ne__",
        "greater",
        "less",
        "round",
        "floor",
        "ceil",
        "trunc",
        "sign",
        "long",
        "int",
        "bool",
    ),
    *("detach", "bucketize", "searchsorted", "multinomial", "bernoulli", "item", "tolist", "heaviside", "one_hot"),
    "nms",
}
_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
MOST = 300_000_000  # weights of which gradients are taken


class Watched(TorchFunctionMode):
    """Keeps what functions that decide are handed.

    Args:
        through: whether gradients go through blocks that switch them off. Not for a forward that takes gradients itself
            (forces, an inner loop), of which they are part of the result: one that ``differentiates``.
    """

    def __init__(self, *, through: bool = False) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor]] = []
        self.differentiates = False
        self._through = through

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            self.differentiates |= bool(args[0])
            return None if self._through else func(*args)
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        cast = name in ("to", "type") and isinstance(result, Tensor) and not _is_real(result)
        if name in _DECIDING or cast or func == _DATA:
            self.seen += [(name, tensor) for tensor in args if isinstance(tensor, Tensor) and _is_real(tensor)]
        return result


class Influence:
    """Which kept units were seen so far, over any number of runs.

    Args:
        units: which are kept, shape (n_units + 1,).
        groups: indices of the groups that lose something; the others' are not asked for.
    """

    def __init__(self, graph: Graph, units: UnitMask, groups: Sequence[int], gone: Callable[[str], bool]) -> None:
        self.graph, self._units = graph, units
        self.asked = np.zeros(graph.n_units, dtype=np.bool_)
        for g in groups:
            self.asked[graph.groups[g].units] = True
        self.asked &= units[: graph.n_units]
        self.seen = np.zeros(graph.n_units, dtype=np.bool_)
        self.run = np.zeros(graph.n_units, dtype=np.bool_)
        self.failure = ""
        self.alive = False  # whether the outputs depend on any of the weights looked at
        self._parameters = {
            name: parameter
            for parameter in graph.parameters.values()
            if not parameter.is_buffer and any(self._asks(axis.factors) for axis in parameter.axes if axis is not None)
            for name in parameter.names
            if not gone(name)
        }

    def _asks(self, factors: Any) -> bool:
        return bool(np.append(self.asked, False)[factors].any())

    @property
    def names(self) -> list[str]:
        """Parameters whose gradients tell."""
        return list(self._parameters)

    @property
    def unseen(self) -> BoolArray:
        """Units that were run and not seen."""
        return np.asarray(self.asked & self.run & ~self.seen, dtype=np.bool_)

    @property
    def share(self) -> float | None:
        """Seen units of those that were run; ``None`` if it could not be measured."""
        if self.failure:
            return None
        run = int((self.asked & self.run).sum())
        return 1.0 - int(self.unseen.sum()) / run if run else (1.0 if not self.asked.any() else None)

    def look(self, leaves: dict[str, Tensor], outputs: Sequence[Tensor], threshold: float) -> None:
        """Take the gradients of ``outputs`` and note what they see."""
        target = _in_random_directions(outputs)
        if target is None:
            return
        names = [name for name in leaves if leaves[name].requires_grad]
        found = torch.autograd.grad(target, [leaves[n] for n in names], allow_unused=True, retain_graph=True)
        for name, gradient in zip(names, found, strict=True):
            self._note(self._parameters[name], leaves[name], gradient, threshold)

    def _note(self, parameter: Parameter, weight: Tensor, gradient: Tensor | None, threshold: float) -> None:
        usual = weight.detach().abs().square().mean().sqrt()
        usual = torch.where(usual > 0, usual, torch.ones_like(usual))
        for d, axis in enumerate(parameter.axes):
            if axis is None or gradient is None:
                continue
            rows = axis.factors[axis.keep(self._units)]
            others = [e for e in range(weight.dim()) if e != d]
            squared = (gradient.abs() * usual).square()
            effect = (squared.sum(others) if others else squared).sqrt()
            noticed = (effect > threshold).cpu().numpy()
            self.alive |= bool(noticed.any())
            for column in rows.T:
                inside = column < self.graph.n_units
                self.run[column[inside]] = True
                self.seen[column[inside & noticed]] = True


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _in_random_directions(outputs: Sequence[Tensor]) -> Tensor | None:
    generator = torch.Generator().manual_seed(0)
    total: Tensor | None = None
    for tensor in outputs:
        if not tensor.requires_grad or not tensor.numel():
            continue
        finite = torch.where(torch.isfinite(tensor), tensor, torch.zeros_like(tensor))
        scale = finite.detach().abs().max()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
        part = (direction * (finite.abs() if finite.is_complex() else finite)).sum() / scale
        total = part if total is None else total + part
    return total
