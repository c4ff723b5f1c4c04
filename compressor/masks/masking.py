"""Run a model as if units were removed, without removing them.

Weights are multiplied by masks along the axis where channels are read, under the names the modules use, so the
registered parameters, ``state_dict`` and optimizers are untouched and gradients reach both weights and masks.
Arithmetic across channels is done over what is kept, at the recorded function calls (``sites``). The gate of a block
multiplies the last parameters of its branch, or its output where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor import resampling
from compressor.errors import UnsupportedModelError
from compressor.graph.graph import Axis, Graph, Site
from compressor.graph.record import ModuleStack, function_name
from compressor.graph.stand_ins import flat_weights
from compressor.masks.bands import Bands
from compressor.masks.sites import HANDLERS
from compressor.multihead import narrowed


@dataclass
class _Masked:
    """A parameter, the name spaces its modules see it in, its masked axes (dimension, axis index) and its gates."""

    name: str
    spaces: list[tuple[dict[str, Any], str]]
    rank: int
    axes: list[tuple[int, int]] = field(default_factory=list)
    gates: list[int] = field(default_factory=list)


class Masking:
    """Applies unit masks to one model. Build it once; ``applied`` costs one multiplication per masked weight."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model = model
        self.graph = graph
        modules = dict(model.named_modules(remove_duplicate=False))
        used: dict[int, Axis] = {}
        masked: dict[str, _Masked] = {}

        def place(name: str) -> _Masked:
            if name not in masked:
                split = [each.rpartition(".") for each in graph.parameters[name].names]
                spaces = [(modules[owner].__dict__, attribute) for owner, _, attribute in split]
                masked[name] = _Masked(name, spaces, len(graph.parameters[name].shape))
            return masked[name]

        for mask in graph.masks:
            for d, axis in mask.axes:
                used[axis.index] = axis
                place(mask.parameter).axes.append((d, axis.index))
        for block in graph.blocks:
            for name in block.gated:
                place(name).gates.append(block.index)
        self._places = list(masked.values())
        for site in graph.sites:
            if site.axis is not None:
                used[site.axis.index] = site.axis
        self._axes = list(used.values())
        self._position = {axis.index: i for i, axis in enumerate(self._axes)}
        self._lengths = [len(axis) for axis in self._axes]
        width = max((axis.factors.shape[1] for axis in self._axes), default=1)
        self._factors = torch.cat(
            [
                nn.functional.pad(torch.from_numpy(a.factors), (0, width - a.factors.shape[1]), value=graph.n_units)
                for a in self._axes
            ]
            or [torch.zeros(0, 1, dtype=torch.int64)]
        )
        self._bands = Bands(graph) if graph.resolutions else None
        self._modules = modules
        self._stack = ModuleStack(model) if graph.sites else None
        self._recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        self._sites = {(s.place, s.function, s.ordinal): [] for s in graph.sites}  # type: ignore[var-annotated]
        for site in graph.sites:
            self._sites[site.place, site.function, site.ordinal].append(site)
        self.parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self.parameters.update(model.named_buffers(remove_duplicate=False))

    def axis_masks(self, units: Tensor) -> list[Tensor]:
        """The mask of every axis in use, for unit weights of shape (n_units,)."""
        if self._factors.device != units.device:
            self._factors = self._factors.to(units.device)
        extended = torch.cat([units, units.new_ones(1)])
        values = extended[self._factors[:, 0]]
        for column in range(1, self._factors.shape[1]):
            values = values * extended[self._factors[:, column]]
        return list(torch.split(values, self._lengths))

    @contextmanager
    def applied(
        self,
        units: Tensor,
        weights: Mapping[str, Tensor] | None = None,
        gates: Tensor | None = None,
        *,
        at_calls: tuple[Tensor, Tensor | None] | None = None,
    ) -> Iterator[None]:
        """Inside, the model's forward is that of the masked model.

        Args:
            units: weight of every unit, shape (n_units,), of the weights' type; gradients flow to it.
            weights: use these tensors instead of registered parameters and buffers (all of them, by any name).
            gates: weight of every block, shape (n_blocks,), likewise; default all 1.
            at_calls: units and gates as the handlers at function calls get them, if not the same. Weights can take up
                soft masks (``fold_``), arithmetic across channels cannot.
        """
        masks = self.axis_masks(units)
        each_gate = [] if gates is None else list(gates.unbind())
        call_masks, call_gates = masks, each_gate
        if at_calls is not None:
            call_masks = self.axis_masks(at_calls[0])
            call_gates = [] if at_calls[1] is None else list(at_calls[1].unbind())
        placed: list[tuple[dict[str, Any], str]] = []
        with ExitStack() as stack:
            stack.callback(_remove, placed)
            for place in self._places:
                if not place.axes and not each_gate:
                    continue
                tensor = self.parameters[place.name] if weights is None else weights[place.name]
                for d, index in place.axes:
                    mask = masks[self._position[index]].to(tensor.dtype)
                    tensor = tensor * mask.reshape(-1, *[1] * (place.rank - 1 - d))
                for index in place.gates if each_gate else ():
                    tensor = tensor * each_gate[index].to(tensor.dtype)
                for space, attribute in place.spaces:
                    space[attribute] = tensor
                    placed.append((space, attribute))
            if weights is not None:
                self._place_others(weights, placed)
            if self._bands is not None:
                stack.enter_context(self._resampled(units, placed))
            stack.enter_context(flat_weights(self._recurrent))
            stack.enter_context(narrowed(self.model))
            if self._stack is not None:
                self._stack.counts.clear()
                stack.enter_context(self._stack.watch())
                stack.enter_context(_Sites(self, call_masks, call_gates))
            yield

    def _place_others(self, weights: Mapping[str, Tensor], placed: list[tuple[dict[str, Any], str]]) -> None:
        """Put the weights that are not masked where modules see them."""
        masked = {(id(space), attribute) for space, attribute in placed}
        modules = dict(self.model.named_modules(remove_duplicate=False))
        for name in weights:
            owner, _, attribute = name.rpartition(".")
            space = modules[owner].__dict__
            if (id(space), attribute) not in masked:
                space[attribute] = weights[name]
                placed.append((space, attribute))

    @contextmanager
    def _resampled(self, units: Tensor, placed: list[tuple[dict[str, Any], str]]) -> Iterator[None]:
        """Inside, branches compute at the resolutions of their masks."""
        handles = []
        for found in self.graph.resolutions:
            handles += resampling.hook_(self._modules, found.inputs, found.output, len(found.axes))
        try:
            for name, attribute, matrix in self._bands.matrices(units) if self._bands is not None else ():
                space = self._modules[name].__dict__
                space[attribute] = matrix
                placed.append((space, attribute))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def fold_(self, units: Tensor, gates: Tensor | None = None) -> None:
        """Multiply the masks into the model's own weights, as ``applied`` does for one forward pass."""
        masks = self.axis_masks(units)
        for place in self._places:
            tensor = self.parameters[place.name]
            for d, index in place.axes:
                mask = masks[self._position[index]].to(tensor.dtype)
                tensor.mul_(mask.reshape(-1, *[1] * (place.rank - 1 - d)))
            for index in place.gates if gates is not None else ():
                tensor.mul_(gates[index].to(tensor.dtype))  # type: ignore[index]

    def site(self, name: str) -> list[Site]:
        """The sites of the call of ``name`` that the program is making now."""
        stack = self._stack
        if stack is None:
            return []
        return self._sites.get((stack.place, name, stack.ordinal(name)), [])

    def mask_of(self, site: Site, masks: list[Tensor], gates: list[Tensor]) -> Tensor | None:
        """The mask, or gate, that a site's handler gets; ``None`` if the site has nothing to do."""
        if site.axis is not None:
            return masks[self._position[site.axis.index]]
        return gates[site.options["block"]] if gates else None

    @property
    def functions(self) -> set[str]:
        """Names of the functions that have sites."""
        return {function for _, function, _ in self._sites}


class _Sites(TorchFunctionMode):
    def __init__(self, masking: Masking, masks: list[Tensor], gates: list[Tensor]) -> None:
        super().__init__()
        self.masking, self.masks, self.gates, self.names = masking, masks, gates, masking.functions

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name not in self.names:
            return func(*args, **kwargs)
        call: Callable[..., Any] = func
        for site in self.masking.site(name):
            call = self._handled(call, site)
        return call(*args, **kwargs)

    def _handled(self, func: Callable[..., Any], site: Site) -> Callable[..., Any]:
        mask = self.masking.mask_of(site, self.masks, self.gates)
        if mask is None:
            return func

        def handled(*args: Any, **kwargs: Any) -> Any:
            try:
                return HANDLERS[site.kind](func, args, kwargs, mask, site.options)
            except (RuntimeError, IndexError, KeyError) as error:
                raise UnsupportedModelError(
                    f"The masked model calls {site.function} in {site.place or 'the model'} otherwise than when it was "
                    f"traced ({str(error).splitlines()[0]}); exclude that module or keep its control flow constant."
                ) from error

        return handled


def _remove(placed: list[tuple[dict[str, Any], str]]) -> None:
    for space, attribute in placed:
        space.pop(attribute, None)
