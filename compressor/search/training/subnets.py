"""Networks inside a network, each computed at its own size.

The full weights stay the parameters. For one pass they are sliced to what a subnet keeps, inside the graph of autograd;
modules see the slices, sizes as they are in the trimmed network, and stubs for blocks that are not there. There is one
copy of the modules for all subnets, so going from one to the next takes milliseconds (``shrinking.Live`` makes a copy
for each set of blocks, which a search that comes back to the same network again and again amortises).

Normalisations use the statistics of the batch: those of one subnet are none for another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Work
from compressor.architecture.edits.set_sizes import set_size_
from compressor.arrays import BoolArray, UnitMask
from compressor.graph.axis import Axis
from compressor.graph.gated import gated_units, kept_units
from compressor.graph.graph import Graph
from compressor.masks.recompute import Pass, Passes
from compressor.nn import multihead
from compressor.nn.copying import same_tensors
from compressor.nn.modules import as_written
from compressor.nn.stubs import stand_in
from compressor.nn.swap import swapped_tensors
from compressor.nn.tensors import Region, part, selection
from compressor.train.frozen import keeps_statistics
from compressor.train.splits import call_model
from compressor.trim.apply import trim
from compressor.trim.plan import plan

#: Plans that are kept: the largest and smallest networks come again and again, random ones hardly ever.
_KEPT = 64


@dataclass(eq=False)
class _Plan:
    """How one subnet is made of the full network."""

    architecture: Architecture
    units: UnitMask
    gates: BoolArray
    slices: list[tuple[str, Sequence[str], Region]] = field(default_factory=list)
    """Parameters that are read in part: first name, the names that are left, and the region by axis."""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """What stands in the place of which module."""
    weighted: list[tuple[str, list[int], list[int]]] = field(default_factory=list)
    """Modules whose result is weighted where masks are given: name, and the blocks or units whose weights these are."""
    whole: nn.Module | None = None
    """A copy of its own, where sizes alone do not make the subnet."""


class Subnets:
    """All subnets of one network.

    Args:
        model: its parameters are what subnets read and train.
        graph: its trace.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self._copy = same_tensors(model)
        _without_statistics_(self._copy, model)
        self._modules = dict(self._copy.named_modules(remove_duplicate=False))
        self._originals = dict(model.named_modules(remove_duplicate=False))
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._plans: OrderedDict[bytes, _Plan] = OrderedDict()
        self._stubs: dict[tuple[str, str], nn.Module] = {}
        self._alternatives: dict[tuple[str, int], nn.Module] = {}
        self._passes = Passes()
        self._parents: dict[str, list[tuple[nn.Module, str]]] = {}
        for parent in dict.fromkeys(self._modules.values()):
            for key, child in parent._modules.items():
                if child is not None:
                    for name in (n for n, m in self._modules.items() if m is child):
                        self._parents.setdefault(name, []).append((parent, key))
        self._read: dict[str, list[tuple[int, Axis]]] = {m.parameter: list(m.axes) for m in graph.masks}
        self._gated: dict[str, list[int]] = {}
        for block in graph.blocks:
            for name in block.gated:
                self._gated.setdefault(name, []).append(block.index)

    def forward(
        self,
        inputs: Any,
        units: UnitMask,
        gates: BoolArray,
        masks: Callable[[], tuple[Tensor, Tensor]] | None = None,
        *,
        dropout: bool = True,
    ) -> Any:
        """The output of one subnet.

        Args:
            units: what it keeps, shape (n_units + 1,), and of choices the alternatives that it has.
            gates: which blocks it has, shape (n_blocks,).
            masks: gives weights of units, (n_units,), and of blocks, (n_blocks,), which are 1 for what is kept:
                gradients flow to them. Called again where a backward computes parts anew.
            dropout: whether dropout acts.
        """
        gates = self.graph.gates(gates)
        made = self._plan(kept_units(self.graph, units, gates), gates)
        network = self._copy if made.whole is None else made.whole
        self._set_modes(network, dropout)
        names, sources = self._tensors(made, None if masks is None else masks())
        stage = _Standing(self, made, network, names)

        def again() -> list[Tensor]:
            return self._tensors(made, None if masks is None else masks())[1]

        made_pass = Pass(self._passes, stage, sources, again)
        with made_pass.forward():
            return made_pass.over(call_model(network, inputs))

    def network(self, units: UnitMask, gates: BoolArray) -> nn.Module:
        """The subnet by itself, see ``subnet``."""
        return subnet(self.model, self.graph, units, gates)

    # ---- what a pass sees

    def _plan(self, units: UnitMask, gates: BoolArray) -> _Plan:
        key = units.tobytes() + gates.tobytes()
        found = self._plans.get(key)
        if found is not None:
            self._plans.move_to_end(key)
            return found
        architecture = plan(self.model, self.graph, units, gates)
        found = self._plans[key] = _Plan(architecture, units, gates)
        if len(self._plans) > _KEPT:
            self._plans.popitem(last=False)
        if any(multihead.WIDTHS[0] in values for values in architecture.attributes.values()):
            found.whole = trim(self.model, architecture)  # an attention of another class
            _without_statistics_(found.whole, self.model)
        for name, kind in architecture.removed.items():
            if name in self._modules:
                found.modules[name] = self._stub(name, kind)
        for choice in self.graph.choices:
            if architecture.is_gone(choice.name):
                continue
            taken = choice.chosen(units)
            if taken != choice.current:
                found.modules[choice.name] = self._alternative(choice.name, taken)
            found.weighted.append((choice.name, [], choice.units.tolist()))
        for block in self.graph.blocks:
            (place, *others) = block.modules or ("",)
            if block.component == "squeeze" and gates[block.index] and place and not others:
                found.weighted.append((place, [block.index], []))
        device = next(self.model.parameters()).device
        for parameter in self.graph.parameters.values():
            if architecture.is_removed(parameter.name):
                continue
            if parameter.is_buffer and self._is_none(parameter.name):
                continue
            kept = architecture.indices.get(parameter.name, {})
            own = found.whole is None  # else the copy has tensors of its own, and must see the model's
            if own and not kept and parameter.name not in self._read and parameter.name not in self._gated:
                continue
            names = [name for name in parameter.names if not architecture.is_gone(name)]
            region = {d: selection(index, device) for d, index in sorted(kept.items())}
            found.slices.append((parameter.name, names, region))
        return found

    def _is_none(self, buffer: str) -> bool:
        """Whether the copy does without it: statistics are those of the batch."""
        owner, _, attribute = buffer.rpartition(".")
        return self._modules[owner]._buffers.get(attribute) is None

    def _stub(self, name: str, kind: str) -> nn.Module:
        key = name, kind
        if key not in self._stubs:
            self._stubs[key] = stand_in(kind, self._originals[name])
        return self._stubs[key]

    def _alternative(self, name: str, taken: int) -> nn.Module:
        key = name, taken
        if key not in self._alternatives:
            (choice,) = [each for each in self.graph.choices if each.name == name]
            work = Work(same_tensors(self.model))
            for edit in choice.alternatives[taken].edits:
                edit.check(work)
                edit.apply_(work)
            self._alternatives[key] = work.modules[name]
        return self._alternatives[key]

    def _all(self, name: str) -> list[nn.Module]:
        """The modules of all alternatives of a choice."""
        (choice,) = [each for each in self.graph.choices if each.name == name]
        own = self._modules[name]
        return [own if i == choice.current else self._alternative(name, i) for i in range(len(choice))]

    def _tensors(self, made: _Plan, masks: tuple[Tensor, Tensor] | None) -> tuple[list[str], list[Tensor]]:
        """The names of tensors that modules see in place of their own, and these."""
        names: list[str] = []
        tensors: list[Tensor] = []
        along = _Along(self.graph, masks, made) if masks is not None else None
        for first, every, region in made.slices:
            source = self._parameters[first] if first in self._parameters else self.model.get_buffer(first)
            tensor = part(source, region)
            if along is not None and source.requires_grad:
                for d, axis in self._read.get(first, ()):
                    mask = along.axis(axis).to(tensor.dtype)
                    tensor = tensor * mask.reshape(-1, *[1] * (tensor.ndim - 1 - d))
                for block in self._gated.get(first, ()):
                    tensor = tensor * along.gates[block].to(tensor.dtype)
            if tensor is not source or made.whole is not None:
                names += every
                tensors += [tensor] * len(every)
        if masks is not None:
            tensors += [masks[0][units] if units else masks[1][blocks] for _, blocks, units in made.weighted]
        return names, tensors

    def _set_modes(self, network: nn.Module, dropout: bool) -> None:
        """Every module in the mode of the model's."""
        for name, module in self._modules.items() if network is self._copy else network.named_modules():
            original = self._originals.get(name)
            if original is not None:
                module.training = original.training and (dropout or not isinstance(module, _DropoutNd))

    @contextmanager
    def standing(self, made: _Plan, network: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the copy has the modules and sizes of a subnet; ``weights`` are for those of ``made.weighted``."""
        if network is not self._copy:
            yield
            return
        placed: list[tuple[nn.Module, str, nn.Module | None]] = []
        sized: list[tuple[nn.Module, str, Any]] = []
        try:
            standing = {name: module.train(self._originals[name].training) for name, module in made.modules.items()}
            for (name, blocks, _), each in zip(made.weighted, weights, strict=False):
                standing[name] = _Passed(self._modules[name], each) if blocks else _Mixed(self._all(name), each)
            for name, module in standing.items():
                for parent, key in self._parents[name]:
                    placed.append((parent, key, parent._modules[key]))
                    parent._modules[key] = module
            for name, values in made.architecture.attributes.items():
                module = self._modules[name]
                for attribute, value in values.items():
                    sized.append((module, attribute, getattr(module, attribute)))
                    set_size_(module, attribute, value)
            yield
        finally:
            for module, attribute, value in reversed(sized):
                set_size_(module, attribute, value)
            for parent, key, before in reversed(placed):
                parent._modules[key] = before


def subnet(model: nn.Module, graph: Graph, units: UnitMask, gates: BoolArray) -> nn.Module:
    """A subnet as an ordinary network with copies of its weights, alternatives of choices in place."""
    found = trim(model, plan(model, graph, units, graph.gates(gates)))
    for choice in graph.choices:
        work = Work(found)
        for edit in choice.alternatives[choice.chosen(units)].edits:
            if edit.subject in work.modules:
                edit.check(work)
                edit.apply_(work)
    return found


class _Standing:
    """Where a pass puts a subnet's tensors and modules; see ``masks.recompute.Stage``."""

    def __init__(self, subnets: Subnets, made: _Plan, network: nn.Module, names: list[str]) -> None:
        self._subnets, self._made, self._network, self._names = subnets, made, network, names

    @contextmanager
    def placed(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the modules are those of the subnet."""
        network = self._network
        modules: Mapping[str, nn.Module] = self._subnets._modules if network is self._subnets._copy else {}
        count = len(self._names)
        with as_written(), self._subnets.standing(self._made, network, tensors[count:]):
            named = dict(zip(self._names, tensors[:count], strict=True))
            with swapped_tensors(network, named, modules or dict(network.named_modules(remove_duplicate=False))):
                yield

    def calls(self, tensors: Sequence[Tensor], position: Any) -> AbstractContextManager[None]:
        """There is nothing at calls."""
        return nullcontext()

    def position(self) -> None:
        """Anywhere."""

    def start(self) -> AbstractContextManager[None]:
        """Anywhere, too."""
        return nullcontext()


class _Passed(nn.Module):
    """A module that may become an identity: ``x + g (f(x) - x)``, with a gate g of shape (1,) that is 1."""

    def __init__(self, module: nn.Module, gate: Tensor) -> None:
        super().__init__()
        self.module, self._gate = module, [gate]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.lerp(x, self.module(x), self._gate[0].to(x.dtype))
        return found


class _Mixed(nn.Module):
    """The weighted sum of what alternatives give; of the weights one is 1."""

    def __init__(self, modules: Sequence[nn.Module], weights: Tensor) -> None:
        super().__init__()
        self.modules_, self._weights = list(modules), weights

    def forward(self, x: Tensor) -> Tensor:
        # Each gets its own: an activation may work in place.
        parts = [
            weight.to(x.dtype) * module(x.clone()) for module, weight in zip(self.modules_, self._weights, strict=True)
        ]
        return torch.stack(parts).sum(0)


class _Along:
    """Masks of the kept indices of axes."""

    def __init__(self, graph: Graph, masks: tuple[Tensor, Tensor], made: _Plan) -> None:
        units, self.gates = gated_units(graph, *masks), masks[1]
        self._values = torch.cat([units, units.new_ones(1)])
        self._kept, self._found = made.units, dict[int, Tensor]()

    def axis(self, axis: Axis) -> Tensor:
        found = self._found.get(axis.index)
        if found is None:
            rows = torch.from_numpy(axis.factors[axis.keep(self._kept)]).to(self._values.device)
            found = self._found[axis.index] = self._values[rows].prod(1)
        return found


def _without_statistics_(copy: nn.Module, model: nn.Module) -> None:
    still = keeps_statistics(model)
    originals = dict(model.named_modules())
    for name, module in copy.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats and originals.get(name) not in still:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
