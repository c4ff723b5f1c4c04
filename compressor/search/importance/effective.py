"""Weights as the forward uses them, whatever the model stores (``graph/analysis/effective``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.graph.axis import Axis
from compressor.graph.graph import ComputedWeight, Graph, Site
from compressor.graph.recording.forward import copied
from compressor.graph.recording.module_stack import ModuleStack, function_name
from compressor.nn.modules import evaluating, gradients, uncompiled
from compressor.nn.multihead import narrowed
from compressor.nn.quantization import unobserved
from compressor.nn.swap import own_copies, unchanged
from compressor.process.generators import isolated_rng
from exporters.example import Example


@dataclass(eq=False)
class Weight:
    """One weight in use.

    ``axes`` has ``None`` where nothing can change, or where a computed weight speaks for this one. ``share`` is below 1
    where several calls read what is computed from the same tensors. ``stored`` names the parameters it comes from, and
    ``reading`` are the axes along which it reads channels, rather than writes them.
    """

    name: str
    tensor: Tensor
    axes: tuple[Axis | None, ...]
    stored: tuple[str, ...]
    reading: frozenset[int] = frozenset()
    share: float = 1.0


class Reads:
    """Watches a forward and keeps the computed weights that its calls read."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self.found: dict[int, Tensor] = {}
        """By position in ``graph.computed``."""

    @contextmanager
    def watching(self) -> Iterator[Reads]:
        """Inside, forwards are watched. Modules run uncompiled, as when they were traced."""
        self.found.clear()
        if not self.graph.computed:
            yield self
            return
        stack = ModuleStack(self.model)
        with (
            uncompiled(self.model),
            narrowed(self.model),
            stack.watch(),
            _Watch(stack, self.graph.computed, self.found),
        ):
            yield self

    def weights(self) -> list[Weight]:
        """Every weight in use: what was read, and the stored ones in all that those do not cover."""
        computed = [(each, self.found[i]) for i, each in enumerate(self.graph.computed) if i in self.found]
        alike: dict[tuple[str, ...], int] = {}
        covered: dict[str, set[int]] = {}
        for each, _ in computed:
            alike[each.parameters] = alike.get(each.parameters, 0) + 1
            units = {int(unit) for axis in each.axes if axis is not None for unit in np.unique(axis.factors)}
            for name in each.parameters:
                covered.setdefault(name, {self.graph.n_units}).update(units)
        weights = [
            Weight(
                " and ".join(each.parameters),
                tensor,
                each.axes,
                each.parameters,
                _read_along(self.graph, each),
                1 / alike[each.parameters],
            )
            for each, tensor in computed
        ]
        reading = {mask.parameter: frozenset(d for d, _ in mask.axes) for mask in self.graph.masks}
        for parameter in self.graph.parameters.values():
            name, spoken_for = parameter.name, covered.get(parameter.name, set())
            if parameter.is_buffer or not parameter.reached:
                continue
            axes = tuple(None if axis is None or _within(axis, spoken_for) else axis for axis in parameter.axes)
            if any(axis is not None for axis in axes) or not spoken_for:
                tensor = self.model.get_parameter(name)
                weights.append(Weight(name, tensor, axes, (name,), reading.get(name, frozenset())))
        return weights


def _within(axis: Axis, units: set[int]) -> bool:
    return bool(units) and set(np.unique(axis.factors).tolist()) <= units


def _read_along(graph: Graph, weight: ComputedWeight) -> frozenset[int]:
    """The axes of a computed weight that its call sums over: those with a mask at that call."""
    summed = [
        site.axis.factors
        for site in graph.sites
        if site.kind == "operand" and site.axis is not None and _call(site) == _call(weight)
    ]
    return frozenset(
        d
        for d, axis in enumerate(weight.axes)
        if axis is not None and any(np.array_equal(axis.factors, factors) for factors in summed)
    )


def _call(of: Site | ComputedWeight) -> tuple[str, str, int]:
    return of.place, of.function, of.ordinal


def weights_in_use(model: nn.Module, graph: Graph, example: Example | None) -> list[Weight]:
    """The weights that one forward in evaluation mode uses; without an example, those stored. Nothing is changed."""
    reads = Reads(model, graph)
    if graph.computed and example is not None:
        args, kwargs = copied((example.args, dict(example.kwargs)))
        contexts = isolated_rng(), unchanged(model), evaluating(model), unobserved(model), gradients(graph.gradients)
        with ExitStack() as stack:
            for context in (*contexts, own_copies(model, graph.written), reads.watching()):
                stack.enter_context(context)
            model(*args, **kwargs)
    return reads.weights()


class _Watch(TorchFunctionMode):
    def __init__(self, stack: ModuleStack, computed: Sequence[ComputedWeight], found: dict[int, Tensor]) -> None:
        super().__init__()
        self._stack, self._found = stack, found
        self._names = {each.function for each in computed}
        self._wanted: dict[tuple[str, str, int], list[int]] = {}
        for i, each in enumerate(computed):
            self._wanted.setdefault((each.place, each.function, each.ordinal), []).append(i)
        self._computed = computed

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name in self._names:
            key = self._stack.place, name, self._stack.ordinal(name)
            for i in self._wanted.get(key, ()):
                each = self._computed[i]
                at = each.argument
                given = kwargs.get(at) if isinstance(at, str) else args[at] if at < len(args) else None
                if isinstance(given, Tensor) and tuple(given.shape) == each.shape:
                    self._found.setdefault(i, given)
        return func(*args, **kwargs)
