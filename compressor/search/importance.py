"""How much each unit matters: by the size of its weights, or by what the loss says.

- magnitude: the squared norm of the weights that carry the unit, as a share of each tensor's.
- Taylor: ``E[(sum w * dL/dw)^2]`` over batches, the squared first-order change of the loss when the unit's weights go
  to zero (Molchanov et al., 2019, eq. 7-8, summed over the unit).

A block matters as much as the units inside it together; by what the loss says, at least as much as the squared
first-order change when its gate closes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.graph.graph import Graph
from compressor.train.outputs import primary_output

FloatArray = npt.NDArray[np.float64]


def magnitude(model: nn.Module, graph: Graph) -> FloatArray:
    """Squared weight norms per unit, each weight's as a share of its tensor's; shape (n_units,).

    A unit that many layers share, such as a channel of a residual stream, adds up its shares in all of them.
    """
    energy = np.zeros(graph.n_units)
    for parameter in graph.parameters.values():
        if parameter.is_buffer or not parameter.reached or len(parameter.shape) < 2:
            continue  # norms and biases have scales of their own, which say little about the weight of a channel
        squared = model.get_parameter(parameter.name).detach().abs().float().square()
        total = float(squared.sum())
        if total == 0 or not np.isfinite(total):
            continue
        for d, axis in enumerate(parameter.axes):
            if axis is None:
                continue
            other = [i for i in range(squared.dim()) if i != d]
            each = (squared.sum(other) if other else squared).double().cpu().numpy() / total
            _add_per_unit(energy, axis.factors, each, graph.n_units)
    return energy


def block_magnitude(graph: Graph) -> FloatArray:
    """Importance of every block in the measure of ``magnitude``: it takes whole weights; shape (n_blocks,)."""
    weights = {p.name for p in graph.parameters.values() if p.reached and not p.is_buffer and len(p.shape) > 1}
    return np.array([float(len(weights.intersection(block.parameters))) for block in graph.blocks])


def taylor(
    model: nn.Module,
    graph: Graph,
    split: Any,
    *,
    batches: int = 8,
    batch_size: int = 64,
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Squared first-order loss changes per unit and per block, averaged over batches. The model is not changed.

    Shapes (n_units,) and (n_blocks,).
    """
    from compressor.graph.modules import evaluating

    device = next(model.parameters()).device
    saliency, of_blocks = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    gated = {name: block.index for block in graph.blocks for name in block.gated}
    tensors = {p.name: model.get_parameter(p.name) for p in graph.parameters.values() if not p.is_buffer and p.reached}
    wanted = {name: t for name, t in tensors.items() if t.requires_grad}
    criterion = loss_fn or (lambda output, target: nn.functional.cross_entropy(primary_output(output), target))
    with evaluating(model):
        for i, (inputs, targets) in enumerate(split.batches(batch_size, shuffle_seed=seed)):
            if i == batches:
                break
            loss = criterion(model(inputs.to(device)), targets.to(device))
            gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
            change, closing = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
            for (name, weight), gradient in zip(wanted.items(), gradients, strict=True):
                if gradient is None:
                    continue
                product = (weight.detach().conj() * gradient).real.double()  # also where weights are complex
                if name in gated:
                    closing[gated[name]] += float(product.sum())
                # Count a unit where it is written; where it is read, the same change would be counted again.
                for d, axis in enumerate(graph.parameters[name].axes[:1]):
                    if axis is not None:
                        other = [j for j in range(product.dim()) if j != d]
                        each = (product.sum(other) if other else product).cpu().numpy()
                        _add_per_unit(change, axis.factors, each, graph.n_units)
            saliency += change**2
            of_blocks += closing**2
    for block in graph.blocks:
        inside = sum(float(saliency[graph.groups[g].units].sum()) for g in block.groups)
        of_blocks[block.index] = max(of_blocks[block.index], inside)
    return saliency / max(batches, 1), of_blocks / max(batches, 1)


def _add_per_unit(total: FloatArray, factors: npt.NDArray[np.int64], each: FloatArray, n_units: int) -> None:
    for column in factors.T:
        total += np.bincount(column, weights=each, minlength=n_units + 1)[:n_units]
