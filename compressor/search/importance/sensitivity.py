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

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.arrays import BoolArray, FloatArray
from compressor.data.base import usual_batch
from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.masks import Masking
from compressor.masks.readers import channels_axis, read_by_modules
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
            readers.watch(units)
            with masking.applied(units) as made:
                outputs = made.over(call_model(model, copied_to_device(inputs, device)))
            drawn = [_against_signs(output, signs) for output in differentiable_outputs(outputs)]
            if drawn:
                total += readers.squared(drawn)
            seen += 1
    return total / max(seen, 1)


def _against_signs(output: Tensor, generator: torch.Generator) -> Tensor:
    """The sum of the outputs, each with a random sign, in units of their own size."""
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output.device, output.dtype) * 2 - 1
    size = output.detach().square().mean().sqrt().clamp_min(_TINY)
    return (output / size * signs).sum()


class _Noted(torch.autograd.Function):
    """The same tensor; in the backward pass towards ``units``, what comes back here alone is noted."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, units: Tensor, note: Callable[[Tensor], None]) -> Tensor:
        ctx.note = note
        return read.view_as(read)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.note(gradients[0])
        return gradients[0], None, None


def _read_elsewhere(read: Mapping[str, Tensor], graph: Graph) -> BoolArray:
    """Whether anything but the layers in ``read`` reads a unit, shape (n_units + 1,)."""
    weights = [mask for mask in graph.masks if not graph.parameters[mask.parameter].is_buffer]
    axes = [axis for mask in weights for _, axis in mask.axes if _owner(mask.parameter) not in read]
    axes += [site.axis for site in graph.sites if site.axis is not None and site.place not in read]
    found = np.zeros(graph.n_units + 1, dtype=np.bool_)
    for axis in axes:
        found[axis.factors] = True
    return found


def _owner(parameter: str) -> str:
    """The layer that a parameter belongs to, as it is or as what its weight is computed from."""
    name, _, _ = parameter.partition(".parametrizations.")
    return name if name != parameter else parameter.rpartition(".")[0]


class _Readers:
    """The layers that read units, and what each sample's units contribute to the gradient there, less their means.

    What is read elsewhere (by calls, grouped convolutions, layers that see other rows than samples, or in a
    backward pass of the forward's own) comes from the gradient of the masks, of the batch as a whole.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self._n = graph.n_units
        self._in_forward = True
        self._samples = 0  # rows of a batch: as many as the first reader sees
        self._units = torch.zeros(0)
        self._each: Tensor | None = None  # (samples, n_units + 1), the means taken off
        self._whole: Tensor | None = None  # (n_units + 1,), over samples, with the means
        modules = dict(model.named_modules(remove_duplicate=False))
        read = {name: torch.from_numpy(units) for name, units in read_by_modules(modules, graph).items()}
        self._places = [(modules[name], factors) for name, factors in read.items()]
        self._elsewhere = torch.from_numpy(_read_elsewhere(read, graph))

    def __enter__(self) -> _Readers:
        self._handles = [
            module.register_forward_pre_hook(lambda module, args, factors=factors: self._read(module, args, factors))
            for module, factors in self._places
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def watch(self, units: Tensor) -> None:
        """Begin a batch with these masks, forgetting the last."""
        self._units, self._samples, self._in_forward = units, 0, True
        self._called: set[nn.Module] = set()
        self._each = self._whole = None

    def squared(self, drawn: list[Tensor]) -> FloatArray:
        """What the backward pass of the sum of ``drawn`` finds, squared and summed over samples."""
        self._in_forward = False
        (gradient,) = torch.autograd.grad(drawn, [self._units], allow_unused=True)
        rest = torch.zeros(self._n, dtype=torch.float64) if gradient is None else gradient.detach().double().cpu()
        found = torch.zeros(self._n, dtype=torch.float64)
        if self._each is not None and self._whole is not None:
            found += self._each[:, : self._n].square().sum(0).double().cpu()
            rest = rest - self._whole[: self._n].double().cpu()
        for module, factors in self._places:
            if module not in self._called:
                self._elsewhere[factors.flatten()] = True
        return np.asarray((found + rest.square() * self._elsewhere[: self._n]).numpy())

    def _read(self, module: nn.Module, args: Any, factors: Tensor) -> Any:
        read = args[0] if args else None
        if not isinstance(read, Tensor) or not read.is_floating_point():
            return None
        channels = channels_axis(module, read.dim())
        if not 0 < channels < read.dim() or read.shape[channels] != len(factors):
            return None
        self._samples = self._samples or len(read)
        if len(read) != self._samples:
            return None
        self._called.add(module)
        noted = _Noted.apply(read, self._units, lambda gradient: self._add(read.detach(), gradient, channels, factors))
        return (noted, *args[1:])

    def _add(self, read: Tensor, gradient: Tensor, channels: int, factors: Tensor) -> None:
        if self._in_forward:
            self._elsewhere[factors.flatten()] = True
            return
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
