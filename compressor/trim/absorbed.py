"""Layers that take up the mean of channels that go, as far as batch norms tell it: no data is needed.

A layer ``y = W x + b`` of which the channels ``R`` of ``x`` go computes ``W[:, not R] x[not R] + b``. On data it then
lacks ``W[:, R] E[x[R]]`` in the mean, a constant. With it in the bias,

    b' = b + sum over R and the taps of the kernel of W[:, R] E[x[R]],

what follows gets inputs whose mean is that of before. A layer without a bias whose output a batch norm alone reads has
it taken off the running mean instead. At the edges of a padded image the constant is that of the inside.

The means ``E[x]``: a batch norm that was trained puts out ``beta`` in the mean with a deviation of ``|gamma|``, channel
by channel. A forward in which every batch norm gives normal numbers of these makes the network itself compute what
activations, pools and sums make of them. Means that depend on the network's inputs as well stay unknown.

After Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", 2019, section 4.2, which
corrects the errors of quantisation so, in closed form for ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils import _pytree as pytree

from compressor.arrays import BoolArray, IntArray, UnitMask
from compressor.graph.gated import kept_units
from compressor.graph.graph import Graph
from compressor.graph.recording.forward import copied
from compressor.masks.readers import channels_axis, read_by_modules
from compressor.nn.copying import same_tensors
from compressor.nn.modules import evaluating, gradients
from compressor.nn.quantization import unobserved
from compressor.nn.swap import unchanged
from compressor.process.generators import isolated_rng
from compressor.trim.outputs import error
from exporters.example import Example

PASSES = 16
"""Forwards that means are taken of."""
_SAME = 1e-5  # of a mean, beside its size, that does not depend on the inputs
_AGREE = 1e-3  # of the outputs in float32, beside the largest


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels whose means are known.

    Attributes:
        name: of the module.
        units: of each channel it reads, shape (channels, factors).
        mean: of each channel, shape (channels,), float64.
        norm: the batch norm that reads its output; None where the layer has a bias.
    """

    name: str
    units: IntArray
    mean: Tensor
    norm: str | None


def known_readers(model: nn.Module, graph: Graph, example: Example, *, seed: int = 0) -> list[Reader]:
    """The layers of ``model`` that could take up means, with these; empty where it has no trained batch norm.

    Args:
        example: the call that the model was traced with.
        seed: of what batch norms give.
    """
    modules = dict(model.named_modules())
    norms = {name: module for name, module in modules.items() if _is_trained(module)}
    read = {name: units for name, units in read_by_modules(modules, graph).items() if _can_take(modules[name])}
    if not norms or not read:
        return []
    with isolated_rng(), unchanged(model), evaluating(model), unobserved(model), gradients(graph.gradients):
        watch = _Watch(modules, norms, read)
        means = watch.means(model, example, seed)
        others = watch.means(model, _zeros(example), seed)
    found = []
    for name, mean in means.items():
        has_place = modules[name].bias is not None or name in watch.read_by
        known = name in others and bool(torch.isfinite(mean).all()) and _alike(mean, others[name])
        known = known and len(mean) == len(read[name])
        if has_place and known:
            norm = None if modules[name].bias is not None else watch.read_by[name]
            found.append(Reader(name, read[name], mean, norm))
    return found


def absorbed(
    model: nn.Module,
    graph: Graph,
    readers: list[Reader],
    units: UnitMask,
    gates: BoolArray | None,
    example: Example,
) -> tuple[nn.Module, int]:
    """A model that shares the tensors of ``model`` but for those that take up means of what goes, and how many do.

    It computes what ``model`` does with the constants added to the outputs of the layers. Where that is not so, as an
    output has other readers than the batch norm, none of those without a bias takes up anything.

    Args:
        units: which units are kept, shape (n_units,) or with the constant last entry.
        gates: which blocks are kept, shape (n_blocks,); default all.
    """
    kept = np.append(kept_units(graph, units, graph.gates(gates))[: graph.n_units].astype(np.bool_), True)
    constants = {each.name: _constant(model.get_submodule(each.name), each, kept) for each in readers}
    for among in (readers, [each for each in readers if each.norm is None]):
        taking = [each for each in among if bool(constants[each.name].any())]
        if not taking:
            continue
        changed = _with(model, taking, constants)
        if all(each.norm is None for each in taking) or _agree(model, graph, changed, taking, constants, example):
            return changed, len(taking)
    return model, 0


def _is_trained(module: nn.Module) -> bool:
    """Whether a batch norm has statistics of data: those of a new one, or of one folded away, say nothing."""
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return False
    return bool((module.running_mean != 0).any()) or bool((module.running_var != 1).any())


def _can_take(module: Any) -> bool:
    """Whether a module is ``W x + b`` and no more: one that was fused or parametrised has modules inside."""
    plain = (
        not module._modules
        and {"weight", "bias"} >= set(module._parameters)
        and not isinstance(module, _ConvTransposeNd)
    )
    return plain and module.weight is not None and module.weight.is_floating_point()


def _zeros(example: Example) -> Example:
    """The same call with zeros for numbers."""

    def nought(value: Any) -> Any:
        return torch.zeros_like(value) if isinstance(value, Tensor) else value

    args, kwargs = pytree.tree_map(nought, (example.args, dict(example.kwargs)))
    return replace(example, args=args, kwargs=kwargs)


def _alike(mean: Tensor, other: Tensor) -> bool:
    return bool((mean - other).abs().max() <= _SAME * mean.abs().max().clamp_min(1e-12))


def _constant(module: Any, reader: Reader, kept: BoolArray) -> Tensor:
    """What the layer lacks in the mean, shape (outputs,), float64, on the CPU: not every device has that type."""
    weight, gone = module.weight.detach().cpu().double(), torch.from_numpy(~kept[reader.units].all(1))
    summed = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    constant: Tensor = summed[:, gone] @ reader.mean[gone]
    return constant


def _with(model: nn.Module, taking: list[Reader], constants: Mapping[str, Tensor]) -> nn.Module:
    changed = same_tensors(model)
    for each in taking:
        module: Any = changed.get_submodule(each.name)
        constant = constants[each.name]
        if each.norm is None:
            bias = module.bias
            module.bias = nn.Parameter((bias.detach().cpu().double() + constant).to(bias), bias.requires_grad)
        else:
            norm: Any = changed.get_submodule(each.norm)
            norm.running_mean = (norm.running_mean.cpu().double() - constant).to(norm.running_mean)
    return changed


def _agree(
    model: nn.Module,
    graph: Graph,
    changed: nn.Module,
    taking: list[Reader],
    constants: Mapping[str, Tensor],
    example: Example,
) -> bool:
    """Whether the changed model computes what the model does with constants added where they are lacking."""
    handles = []
    for each in taking:
        module, constant = model.get_submodule(each.name), constants[each.name]

        def add(module: nn.Module, _: Any, out: Tensor, constant: Tensor = constant) -> Tensor:
            shape = [1] * out.dim()
            shape[channels_axis(module, out.dim())] = -1
            return out + constant.to(out).reshape(shape)

        handles.append(module.register_forward_hook(add))
    try:
        expected = _outputs(model, example, graph.gradients)
    finally:
        for handle in handles:
            handle.remove()
    found = _outputs(changed, example, graph.gradients)
    return len(expected) == len(found) and all(
        a.shape == b.shape and error(a, b) <= _AGREE for a, b in zip(expected, found, strict=True)
    )


def _outputs(model: nn.Module, example: Example, differentiable: bool) -> list[Tensor]:
    with isolated_rng(), unchanged(model), evaluating(model), unobserved(model), gradients(differentiable):
        args, kwargs = copied((example.args, dict(example.kwargs)))
        return [each for each in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(each, Tensor)]


class _Watch:
    """Forwards in which batch norms give normal numbers, and layers say what they read.

    Attributes:
        read_by: by name of a layer the batch norm that was handed its output.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], norms: Mapping[str, nn.Module], read: Mapping[str, IntArray]
    ) -> None:
        self._modules, self._norms, self._read = modules, norms, read
        self.read_by: dict[str, str] = {}
        self._outputs: dict[int, tuple[str, Tensor]] = {}  # held, so that no other tensor takes the place of one

    def means(self, model: nn.Module, example: Example, seed: int) -> dict[str, Tensor]:
        """By name of a layer that runs once, the mean of each channel that it reads; empty if the forward fails."""
        generator = torch.Generator().manual_seed(seed)
        total: dict[str, Tensor] = {}
        calls: dict[str, int] = {}
        with self._hooks(generator, total, calls):
            for _ in range(PASSES):
                self._outputs.clear()
                try:
                    args, kwargs = copied((example.args, dict(example.kwargs)))
                    model(*args, **kwargs)
                except (RuntimeError, ValueError, IndexError):
                    return {}
        return {name: mean / PASSES for name, mean in total.items() if calls[name] == PASSES}

    @contextmanager
    def _hooks(self, generator: torch.Generator, total: dict[str, Tensor], calls: dict[str, int]) -> Iterator[None]:
        def reads(name: str) -> Callable[..., None]:
            def note(module: nn.Module, args: Any, out: Any) -> None:
                read, channels = args[0], channels_axis(module, args[0].dim())
                mean = read.detach().float().transpose(0, channels).flatten(1).mean(1).cpu().double()
                total[name] = total.get(name, 0.0) + mean
                calls[name] = calls.get(name, 0) + 1
                self._outputs[id(out)] = (name, out)

            return note

        def gives(name: str) -> Callable[..., Tensor]:
            def draw(module: Any, args: Any, out: Tensor) -> Tensor:
                if id(args[0]) in self._outputs:
                    self.read_by[self._outputs[id(args[0])][0]] = name
                shape = (1, -1, *[1] * (out.dim() - 2))
                drawn = torch.randn(out.shape, generator=generator).to(out.device, out.dtype)
                if module.weight is not None:
                    drawn = drawn * module.weight.abs().reshape(shape)
                return drawn if module.bias is None else drawn + module.bias.reshape(shape)

            return draw

        handles = [self._modules[name].register_forward_hook(reads(name)) for name in self._read]
        handles += [module.register_forward_hook(gives(name)) for name, module in self._norms.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
