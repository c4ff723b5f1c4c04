"""How a trace was made, without its tensors: enough to trace a changed copy of the model alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.graph.inputs.input_axes import Arguments, BatchAxis, InputAxes

_PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class TensorLike:
    """A tensor of zeros."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Retrace:
    """``inputs`` with ``TensorLike`` for tensors, and the options of ``capture``."""

    inputs: Arguments
    batch_axis: BatchAxis
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    keep_outputs: tuple[str, ...]
    kernels: bool
    resolution: bool
    squeeze: bool = False

    def arguments(self, device: torch.device) -> Arguments:
        """Inputs of the same shapes and types."""

        def made(leaf: Any) -> Any:
            return torch.zeros(leaf.shape, dtype=leaf.dtype, device=device) if isinstance(leaf, TensorLike) else leaf

        args, kwargs = pytree.tree_map(made, self.inputs)
        return args, kwargs

    def options(self) -> dict[str, Any]:
        """Those that ``capture`` takes besides the inputs."""
        names = ("batch_axis", "include", "exclude", "keep_outputs", "kernels", "resolution", "squeeze")
        return {name: getattr(self, name) for name in names}


def retrace_of(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    axes: InputAxes | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    keep_outputs: tuple[str, ...],
    kernels: bool,
    resolution: bool,
    squeeze: bool,
) -> Retrace | None:
    """Of a trace of these inputs; ``None`` if they hold what can be made of no description."""
    leaves = pytree.tree_leaves((args, kwargs))
    if not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
        return None
    described: Arguments = pytree.tree_map(
        lambda leaf: TensorLike(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
    )
    batch_axis: BatchAxis = "auto" if axes is None else list(axes.batch)
    return Retrace(described, batch_axis, include, exclude, keep_outputs, kernels, resolution, squeeze)
