"""Run a model as if units were removed, without removing them.

Weights are multiplied by masks along the axis where channels are read, under the names the modules use, so the
registered parameters, ``state_dict`` and optimizers are untouched and gradients reach both weights and masks. Where
other weights than the model's own are given, they stand in the place of these for the length of a pass.
Arithmetic across channels is done over what is kept, at the recorded function calls (``sites``). The gate of a block
multiplies the last parameters of its branch, or its output where there are none.

Frozen tensors (``requires_grad`` is false) are never written: no soft mask is folded into them, and so none acts on
them where it would have to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.graph.axis import Axis
from compressor.graph.gated import gated_units
from compressor.graph.graph import Graph, Site
from compressor.masks.at_reading import Factor, Reading
from compressor.masks.bands import Bands
from compressor.masks.layout import Layout
from compressor.masks.part_stack import PartStack, Place
from compressor.masks.recompute import Pass, Passes
from compressor.masks.written import Written
from compressor.nn import resampling
from compressor.nn.sharded import is_fsdp, is_share, operand, original_class
from compressor.nn.swap import registry


@dataclass(frozen=True)
class Given:
    """What a model is masked with.

    Attributes:
        units: weight of every unit, shape (n_units,), of the weights' type; gradients flow to it.
        weights: use these tensors instead of registered parameters and buffers (all of them, by any name).
        gates: weight of every block, shape (n_blocks,), likewise; default all 1.
        hard: units and gates, 0 or 1, for what cannot take up soft ones (``fold_``), if these will be folded: function
            calls, as arithmetic across channels cannot, and frozen weights, which stay as they are.
    """

    units: Tensor
    weights: Mapping[str, Tensor] | None = None
    gates: Tensor | None = None
    hard: tuple[Tensor, Tensor | None] | None = None


@dataclass
class _Masked:
    """A parameter or buffer, the modules that have it, its masked axes (dimension, axis index) and its gates."""

    name: str
    owners: list[tuple[nn.Module, str]]
    rank: int
    is_buffer: bool
    axes: list[tuple[int, int]] = field(default_factory=list)
    gates: list[int] = field(default_factory=list)

    def spaces(self) -> list[Place]:
        """Where modules look before their parameters, so that these are left as they are."""
        return [(vars(module), attribute) for module, attribute in self.owners]

    def registries(self) -> list[Place]:
        """Where modules keep it."""
        return [(registry(module, attribute), attribute) for module, attribute in self.owners]


class Masking:
    """Applies unit masks to one model. Build it once; ``applied`` costs one multiplication per masked weight.

    Raises:
        UsageError: the model has not the parameters that the graph was made of.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model = model
        self.graph = graph
        modules = dict(model.named_modules(remove_duplicate=False))
        self.parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self.parameters.update(model.named_buffers(remove_duplicate=False))
        for name in (each for parameter in graph.parameters.values() for each in parameter.names):
            if name not in self.parameters:
                raise UsageError(
                    f"{name} goes by another name than when the model was traced, or is gone. Wrap modules (activation "
                    "checkpointing, for instance), rename or replace them before compressor.prepare."
                )
        used: dict[int, Axis] = {}
        masked: dict[str, _Masked] = {}

        def place(name: str) -> _Masked:
            if name not in masked:
                parameter = graph.parameters[name]
                split = [each.rpartition(".") for each in parameter.names]
                owners = [(modules[owner], attribute) for owner, _, attribute in split]
                masked[name] = _Masked(name, owners, len(parameter.shape), parameter.is_buffer)
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
        self.modules = modules
        self.stack = PartStack(model, {site.place for site in graph.sites}) if graph.sites else None
        self.recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        self.attends = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
        self._sites = {(s.place, s.function, s.ordinal): [] for s in graph.sites}  # type: ignore[var-annotated]
        for site in graph.sites:
            self._sites[site.place, site.function, site.ordinal].append(site)
        self.n_axes = len(self._axes)
        self._shares: set[str] = set()  # names of parameters that are multiplied when they are read
        self.passes = Passes()

    def axis_masks(self, units: Tensor) -> list[Tensor]:
        """The mask of every axis in use, for unit weights of shape (n_units,)."""
        if self._factors.device != units.device:
            self._factors = self._factors.to(units.device)
        extended = torch.cat([units, units.new_ones(1)])
        values = extended[self._factors[:, 0]]
        for column in range(1, self._factors.shape[1]):
            values = values * extended[self._factors[:, column]]
        return list(torch.split(values, self._lengths))

    def applied(
        self,
        units: Tensor,
        weights: Mapping[str, Tensor] | None = None,
        gates: Tensor | None = None,
        *,
        hard: tuple[Tensor, Tensor | None] | None = None,
    ) -> AbstractContextManager[Pass]:
        """Inside, the model's forward is that of the masked model. For the arguments see ``Given``."""
        return self.applied_by(lambda: Given(units, weights, gates, hard))

    def applied_by(self, given: Callable[[], Given]) -> AbstractContextManager[Pass]:
        """``applied`` with what ``given`` returns; called again it returns the same values with a history of their own,
        for a backward that computes parts of the forward anew. Yields the pass, for its outputs."""
        frozen = {place.name for place in self._places if self._is_frozen(place)}  # even if the loop freezes more since
        layout, tensors = self._stand_ins(given(), frozen)
        return Pass(self.passes, layout, tensors, lambda: self._stand_ins(given(), frozen)[1]).forward()

    def _is_frozen(self, place: _Masked) -> bool:
        return not self.parameters[place.name].requires_grad

    def _stand_ins(self, given: Given, frozen: set[str]) -> tuple[Layout, list[Tensor]]:
        """What modules and calls see, and where."""
        soft = self._masks(given.units, given.gates)
        hard = soft if given.hard is None else self._masks(*given.hard)
        places: list[Place] = []
        tensors: list[Tensor] = []
        shared: list[tuple[_Masked, bool]] = []
        written: list[Written] = []
        own = given.weights is None
        for place in self._places:
            masks, each_gate = hard if place.name in frozen else soft
            if not place.axes and not each_gate:
                continue
            if place.name in self._shares:
                shared.append((place, place.name in frozen))
                continue
            tensor = self.parameters[place.name] if given.weights is None else given.weights[place.name]
            factors = [
                masks[self._position[index]].to(tensor.dtype).reshape(-1, *[1] * (place.rank - 1 - d))
                for d, index in place.axes
            ]
            factors += [each_gate[index].to(tensor.dtype) for index in place.gates if each_gate]
            if own and place.is_buffer:
                written.append(Written(place.owners, self.parameters[place.name], factors))
                tensor = tensor.clone()  # not what is written to
            for factor in factors:
                tensor = tensor * factor
            found = place.spaces() if own and not place.is_buffer else place.registries()
            places += found
            tensors += [tensor] * len(found)
        if given.weights is not None:
            masked = {(id(space), attribute) for space, attribute in places}
            for name, tensor in given.weights.items():
                owner, _, attribute = name.rpartition(".")
                space = registry(self.modules[owner], attribute)
                if (id(space), attribute) not in masked:
                    places.append((space, attribute))
                    tensors.append(tensor)
        for name, attribute, matrix in self._bands.matrices(given.units) if self._bands is not None else ():
            places.append((self.modules[name].__dict__, attribute))
            tensors.append(matrix)
        if self.stack is None and not shared:
            return Layout(self, places, written=written), tensors
        if not shared:
            return Layout(self, places, written=written), [*tensors, *hard[0], *hard[1]]
        starts = len(tensors), len(tensors) + len(soft[0]) + len(soft[1])
        readings = [
            Reading(each, factors)
            for place, is_frozen in shared
            for factors in [tuple(self._factors_of(place, starts[is_frozen], bool(soft[1])))]
            for each in place.spaces()
        ]
        return Layout(self, places, readings, starts[1], written), [*tensors, *soft[0], *soft[1], *hard[0], *hard[1]]

    def _factors_of(self, place: _Masked, start: int, gated: bool) -> Iterator[Factor]:
        """What a parameter is multiplied by; ``start`` is where the masks of axes and the gates begin."""
        for d, index in place.axes:
            yield Factor(start + self._position[index], (-1, *[1] * (place.rank - 1 - d)))
        for index in place.gates if gated else ():
            yield Factor(start + self.n_axes + index, ())

    def follow(self, parameters: Mapping[str, Tensor]) -> None:
        """From here on the weights are these, by every name, at rest (``nn.sharded``): shares are multiplied when they
        are read, as they are whole only while their modules run.

        Raises:
            UsageError: masks cannot act in what was sharded.
        """
        if self._bands is not None:
            raise UsageError(
                "A learned resolution needs kernels that are whole at all times, and the model was sharded; pass "
                "options={'learn': 'width,depth,kernel'} to compressor.prepare, or use DistributedDataParallel."
            )
        for name, module in self.modules.items():
            if is_fsdp(module) and original_class(module) is nn.MultiheadAttention:
                raise UsageError(
                    f"{name or 'The model'} is an nn.MultiheadAttention that was sharded by itself, so no head of it "
                    "can be masked; call fully_shard on the module around it."
                )
        self.parameters.update(parameters)
        self._shares = {name for name, tensor in parameters.items() if is_share(tensor)}

    def _masks(self, units: Tensor, gates: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """The mask of every axis in use, and every gate."""
        return self.axis_masks(gated_units(self.graph, units, gates)), [] if gates is None else list(gates.unbind())

    def take(self, model: nn.Module) -> None:
        """Let ``fold_`` write into the weights of ``model``, which may be a copy."""
        self.parameters.update(model.named_parameters(remove_duplicate=False))
        self.parameters.update(model.named_buffers(remove_duplicate=False))

    def require_unchanged(self) -> None:
        """Raise ``UsageError`` if another tensor has taken the place of a parameter, as masks act on those there were.

        Parametrizations, assignments and what shards them do that; for ``fully_shard`` see ``follow``.
        """
        for place in self._places:
            tensor = self.parameters[place.name]
            for module, attribute in place.owners:
                found = module._parameters.get(attribute)
                if place.name in self._shares and found is not None:  # a share, or all of it
                    continue
                if found is not tensor and module._buffers.get(attribute) is not tensor:
                    kind = "something else" if found is None else f"another {type(found).__name__}"
                    raise UsageError(
                        f"{place.name} is {kind} since the masks were prepared. Parametrize or replace parameters "
                        "before compressor.prepare. Of what shards them, fully_shard is supported, on the prepared "
                        "model itself; FullyShardedDataParallel and tensor parallelism are not."
                    )

    @contextmanager
    def resampled(self) -> Iterator[None]:
        """Inside, branches compute at the resolutions of the matrices that stand in their modules."""
        handles = []
        for found in self.graph.resolutions:
            handles += resampling.hook_(self.modules, found.inputs, found.output, len(found.axes))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def fold_(self, units: Tensor, gates: Tensor | None = None) -> None:
        """Multiply the masks into the model's own weights, but for frozen ones, as ``applied`` does for one forward."""
        masks = self.axis_masks(gated_units(self.graph, units, gates))
        for place in self._places:
            if self._is_frozen(place):
                continue
            tensor = self.parameters[place.name]
            for d, index in place.axes:
                mask = masks[self._position[index]].to(tensor.dtype)
                tensor.mul_(operand(tensor, mask.reshape(-1, *[1] * (place.rank - 1 - d))))
            for index in place.gates if gates is not None else ():
                tensor.mul_(operand(tensor, gates[index].to(tensor.dtype)))  # type: ignore[index]

    def site(self, name: str) -> list[Site]:
        """The sites of the call of ``name`` that the program is making now."""
        stack = self.stack
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
