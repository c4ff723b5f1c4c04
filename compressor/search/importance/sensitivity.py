"""Importance by how much the network's outputs change when a unit goes, balanced by the size of its weights.

The first factor is the squared first-order change of the outputs: a unit's contribution where it is read, less the
constant part, which the norm or bias behind it takes up. No label is needed, and nothing is lost where the training
samples are learned by heart and the gradient of their loss has vanished. With random signs ``v`` of the outputs ``y``,
the expectation of ``(d(v . y)/dm)^2`` is the squared norm of ``dy/dm``, so few backward passes do for all outputs
(Hutchinson, 1990).

The second factor is the unit's share of the weights (``norms.l2``). A first-order change says little about many units
that go together; shares keep layers in balance. The importance is the geometric mean of both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compressor.arrays import FloatArray
from compressor.data.base import usual_batch
from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.masks import Masking
from compressor.nn.modules import evaluating
from compressor.nn.quantization import unobserved
from compressor.process.generators import isolated_rng
from compressor.search.importance.base import Ranking, Scores, inside
from compressor.search.importance.dead import without_dead
from compressor.search.importance.norms import l2
from compressor.train.layout import copied_to_device
from compressor.train.objectives.outputs import differentiable_outputs
from compressor.train.rng import derive_seed
from compressor.train.splits import call_model

_BATCH = 64
_TINY = 1e-12


def sensitivity(ranking: Ranking) -> Scores:
    """See the module docstring. The model is not changed. Raises ``UsageError`` without data."""
    if ranking.context.data is None:
        raise UsageError("sensitivity looks at data, and there is none; pass data, or rank by magnitude.")
    change, (shares, _) = output_change(ranking), l2(ranking)
    if not change.any():
        ranking.warn("sensitivity: no output changes with any channel; ranked by magnitude.")
        return shares, inside(ranking.graph, shares)
    # What changes nothing goes first, that of the smallest weights before the rest.
    units = np.sqrt((change + _TINY * change.max()) * shares)
    return without_dead(ranking, units, inside(ranking.graph, units))


def output_change(ranking: Ranking) -> FloatArray:
    """The squared first-order change of the outputs when each unit goes, shape (n_units,); a batch's, in the mean."""
    context, graph, model = ranking.context, ranking.graph, ranking.model
    n, device = graph.n_units, next(model.parameters()).device
    masking, total, seen = Masking(model, graph), np.zeros(n), 0
    signs = torch.Generator().manual_seed(derive_seed(context.seed, "sensitivity"))
    size = usual_batch(context.data.train, _BATCH)
    with isolated_rng(), evaluating(model), unobserved(model), torch.enable_grad(), _Readers(model, graph) as readers:
        for inputs, _targets in context.data.train.batches(size, shuffle_seed=context.seed):
            if seen == ranking.batches:
                break
            units = torch.ones(n, device=device, requires_grad=True)
            readers.clear()
            with masking.applied(units) as made:
                outputs = made.over(call_model(model, copied_to_device(inputs, device)))
            drawn = [_against_signs(output, signs) for output in differentiable_outputs(outputs)]
            if drawn:
                (gradient,) = torch.autograd.grad(drawn, [units], allow_unused=True)
                total += readers.squared(gradient)
            seen += 1
    return total / max(seen, 1)


def _against_signs(output: Tensor, generator: torch.Generator) -> Tensor:
    """The sum of the outputs, each with a random sign, in units of their own size."""
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output.device, output.dtype) * 2 - 1
    size = output.detach().square().mean().sqrt().clamp_min(_TINY)
    return (output / size * signs).sum()


class _Readers:
    """The layers that read units, and what each sample's units contribute to the gradient there, less their means.

    What is read elsewhere (by calls, grouped convolutions, or layers that see other rows than samples) comes from the
    gradient of the masks, of the batch as a whole.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self._n, self._places = graph.n_units, []  # type: tuple[int, list[tuple[nn.Module, Tensor]]]
        self._samples = 0  # rows of a batch: as many as the first reader sees
        self._each: Tensor | None = None  # (samples, n_units + 1), the means taken off
        self._whole: Tensor | None = None  # (n_units + 1,), over samples, with the means
        modules = dict(model.named_modules())
        for mask in graph.masks:
            name, _, tensor = mask.parameter.rpartition(".")
            module = modules.get(name)
            if tensor == "weight" and isinstance(module, nn.Linear | _ConvNd) and getattr(module, "groups", 1) == 1:
                reading = 0 if isinstance(module, _ConvTransposeNd) else 1
                factors = [torch.from_numpy(axis.factors) for d, axis in mask.axes if d == reading]
                self._places += [(module, each) for each in factors if len(each) == module.weight.shape[reading]]

    def __enter__(self) -> _Readers:
        self._handles = [
            module.register_forward_pre_hook(lambda module, args, factors=factors: self._read(module, args, factors))
            for module, factors in self._places
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def clear(self) -> None:
        """Forget the last batch."""
        self._samples = 0
        self._each = self._whole = None

    def squared(self, gradient: Tensor | None) -> FloatArray:
        """What the last backward pass found, squared and summed over samples, given the gradient of the masks."""
        rest = torch.zeros(self._n, dtype=torch.float64) if gradient is None else gradient.detach().double().cpu()
        if self._each is None or self._whole is None:
            return np.asarray(rest.square().numpy())
        rest = rest - self._whole[: self._n].double().cpu()
        return np.asarray((self._each[:, : self._n].square().sum(0).double().cpu() + rest.square()).numpy())

    def _read(self, module: nn.Module, args: Any, factors: Tensor) -> Any:
        read = args[0] if args else None
        if not isinstance(read, Tensor) or not read.requires_grad:
            return None
        channels = read.dim() - 1 if isinstance(module, nn.Linear) else 1
        if read.dim() <= channels or read.shape[channels] != len(factors) or channels == 0:
            return None
        self._samples = self._samples or len(read)
        if len(read) != self._samples:
            return None
        seen = read.view_as(read)  # its gradient is what this layer alone gives
        seen.register_hook(lambda gradient: self._add(read.detach(), gradient, channels, factors))
        return (seen, *args[1:])

    def _add(self, read: Tensor, gradient: Tensor, channels: int, factors: Tensor) -> None:
        within = [d for d in range(1, read.dim()) if d != channels]
        given = read * gradient
        whole, slope = (given.sum(within), gradient.sum(within)) if within else (given, gradient)
        each = whole - read.mean([0, *within]) * slope
        if self._each is None or self._whole is None:
            self._each = each.new_zeros(len(read), self._n + 1)
            self._whole = each.new_zeros(self._n + 1)
        for column in factors.T.to(read.device):
            self._each.index_add_(1, column, each)
            self._whole.index_add_(0, column, whole.sum(0))
