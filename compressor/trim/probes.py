"""Inputs to verify with: the user's own, random ones, another number of examples, other lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.graph.graph import Graph
from compressor.graph.inputs.input_axes import Arguments, InputAxes, equal_axes, input_tensors, resized_axis, variants
from compressor.graph.recording.forward import on_meta
from compressor.nn.modules import evaluating, gradients, uncompiled
from compressor.nn.quantization import unobserved
from compressor.nn.swap import swapped_tensors, unchanged

_FEW = 2  # examples of the user's own that are run
_LARGE = 50_000  # numbers in inputs from which on others are small where the original takes such, and never longer
_LONG = 64  # from which length on an axis is made small


@dataclass(frozen=True)
class Probe:
    """``name`` says what the inputs are; ``own`` whether they are the user's."""

    name: str
    inputs: Arguments
    own: bool = False


def own_probe(graph: Graph, inputs: Arguments) -> Probe:
    """The user's inputs; of a batch the first examples."""
    if graph.inputs is None or graph.inputs.size(inputs) <= _FEW:
        return Probe("the example inputs", inputs, own=True)
    return Probe(f"{_FEW} of the example inputs", graph.inputs.take(inputs, list(range(_FEW))), own=True)


def random_probe(inputs: Arguments, seed: int) -> Probe:
    """The same inputs with other values; integers are drawn from those that the user's have."""
    generator = torch.Generator().manual_seed(seed)
    args, kwargs = pytree.tree_map(lambda leaf: _random(leaf, generator) if isinstance(leaf, Tensor) else leaf, inputs)
    return Probe("random values", (args, kwargs))


def other_probes(model: nn.Module, graph: Graph, inputs: Arguments, seed: int) -> Iterator[Probe]:
    """Random values in another number of examples, and in another length, as far as the original takes them.

    Of large inputs both at once and much smaller: these cost little beside the user's own.
    """
    axes = graph.inputs if graph.inputs is not None and graph.inputs.batched else equal_axes(inputs, 0)
    few = inputs if axes.size(inputs) <= _FEW else axes.take(inputs, list(range(_FEW)))
    large = count(few) > _LARGE
    small = _small(model, graph, axes, few) if large and not graph.resolutions else None
    if small is not None:
        yield Probe(small.name, random_probe(small.inputs, seed).inputs)
        return
    found = False
    # A learned resolution makes a network that runs at one size.
    for variant in variants(axes, few, lambda changed: _takes(model, graph, changed)):
        if variant.name.startswith("a batch"):
            found = True
        elif graph.resolutions or (large and "longer" in variant.name):
            continue
        yield Probe(f"{variant.name}", random_probe((variant.args, variant.kwargs), seed).inputs)
    if not found:
        yield random_probe(few, seed)


def count(inputs: Arguments) -> int:
    """How many numbers the inputs have."""
    return sum(t.numel() for t in input_tensors(*inputs))


def _small(model: nn.Module, graph: Graph, axes: InputAxes, inputs: Arguments) -> Probe | None:
    """Another number of examples with every long axis short; odd lengths first, as these show more."""
    lengths = {n for t, b in zip(input_tensors(*inputs), axes.batch, strict=True) for n in _axes_of(t, b) if n >= _LONG}
    if not lengths or not axes.batched:
        return None
    size = axes.size(inputs)
    n = size + 1 if size == 1 else 1
    tried: list[Callable[[int], int]] = [lambda k: k // 4 + 1 + k // 4 % 2, lambda k: k // 4, lambda k: k // 2]
    for shorter in tried:
        changed = axes.resized(inputs, n)
        for length in sorted(lengths):
            changed = resized_axis(axes, changed, length, shorter(length))
        if _takes(model, graph, changed):
            sizes = " and ".join(f"{shorter(length)} instead of {length}" for length in sorted(lengths))
            return Probe(f"a batch of {n}, of inputs that are shorter, {sizes}", changed)
    return None


def _axes_of(tensor: Tensor, batch: int | None) -> list[int]:
    return [n for d, n in enumerate(tensor.shape) if d != batch]


def _takes(model: nn.Module, graph: Graph, inputs: Arguments) -> bool:
    """Whether the original runs on inputs of this size, tried without numbers where the trace was."""
    stand_ins: dict[str, Tensor] = {}
    if graph.on_meta:
        inputs = on_meta(inputs)
        for parameter in graph.parameters.values():
            find = model.get_buffer if parameter.is_buffer else model.get_parameter
            stand_in = torch.empty_like(find(parameter.name), device="meta")
            stand_in.requires_grad_(graph.gradients and find(parameter.name).requires_grad)
            stand_ins.update(dict.fromkeys(parameter.names, stand_in))
    try:
        switched, written = gradients(graph.gradients), uncompiled(model)  # no compiler for one pass
        with (
            unchanged(model),
            evaluating(model),
            unobserved(model),
            written,
            switched,
            swapped_tensors(model, stand_ins),
        ):
            model(*inputs[0], **inputs[1])
    except Exception:  # whatever a forward may raise
        return False
    return True


def _random(leaf: Tensor, generator: torch.Generator) -> Tensor:
    if leaf.is_floating_point() or leaf.is_complex():
        if leaf.numel() and (not bool(torch.isfinite(leaf).all()) or (leaf.numel() > 2 and _is_mask(leaf))):
            return leaf  # it says what counts, not how much
        kind = torch.complex128 if leaf.is_complex() else torch.float64
        drawn = torch.randn(leaf.shape, generator=generator, dtype=kind).to(leaf.device)
        return drawn.requires_grad_(leaf.requires_grad)
    if leaf.dtype is torch.bool or not leaf.numel():
        return leaf
    order = torch.randint(leaf.numel(), (leaf.numel(),), generator=generator).to(leaf.device)
    return leaf.flatten()[order].reshape(leaf.shape)


def _is_mask(leaf: Tensor) -> bool:
    return bool(((leaf == 0) | (leaf == 1)).all()) if not leaf.is_complex() else False
