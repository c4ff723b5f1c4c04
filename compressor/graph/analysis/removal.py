"""How a block can be taken out of the module tree.

The forward of a user's module cannot be rewritten, but what it calls can be replaced:

- *Whole module*: the smallest module around the branch and its addition returns its argument once the branch is gone
  (and a trailing ReLU meets values that are not negative anyway). It becomes an identity.
- *Branch modules*: of the modules that exist for the branch alone, the last becomes a zero and the others identities.
  Where the branch is a factor of its stream, one module is all of it, and becomes a one. Where it is concatenated with
  others, the last becomes empty.
  Operators of the branch that lie in the forward of a module that stays (a reshape between two modules, a layer scale)
  go on running, on values nobody needs: so they must be cheap, and the identities must keep shapes for them.

A branch with neither is no block. Branches that run the same modules go together, as the modules do.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Literal

from torch import nn

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.module_calls import Branch, ModuleCalls
from compressor.graph.analysis.reduction import Reductions
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import ModuleCall, Node, Value
from compressor.nn.stubs import kind_of

_SCALAR_OK = {"mul", "add", "sub"}
_ZERO_IN_ZERO_OUT = {"view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "unsqueeze",
                     "squeeze", "contiguous", "clone", "alias", "detach", "_to_copy", "slice", "roll", "flip", "expand",
                     "dropout", "native_dropout", "mul", "div", "neg", "relu", "gelu", "silu", "tanh", "hardswish",
                     "leaky_relu", "hardtanh", "relu6", "add", "sub", "cat"}  # fmt: skip
_LINEAR_IN_ALL = {"add", "sub", "cat"}  # zero where all operands are
# Where one zero stands for all of a tensor, these give one that does.
_BROADCASTS = {"mul", "div", "neg", "add", "sub", "relu", "gelu", "silu", "tanh", "hardswish", "leaky_relu", "hardtanh",
               "relu6", "sigmoid", "hardsigmoid", "exp", "softplus", "abs", "pow", "square", "dropout",
               "native_dropout", "clone", "alias", "detach", "contiguous", "_to_copy"}  # fmt: skip
_SAFE_ON_ANY_SHAPE = {"relu", "gelu", "silu", "tanh", "sigmoid", "hardswish", "hardtanh", "relu6", "dropout", "clone",
                      "detach", "alias", "contiguous"}  # fmt: skip


Parameters = dict[str, tuple[Value, tuple[str, ...], bool]]
Joined = Literal["stream", "factor", "sum", "concat"]
"""Branches are added to a stream or multiply it, or are operators side by side that are summed or concatenated."""


class Removals:
    """Ways to take out the branches of one recording, all of which are ``joined`` alike."""

    def __init__(
        self,
        flow: Flow,
        dataflow: Dataflow,
        calls: list[ModuleCall],
        parameters: Parameters,
        modules: dict[str, nn.Module],
        branches: list[Branch],
        *,
        joined: Joined = "stream",
    ) -> None:
        self.dataflow, self.tensors, self.joined = dataflow, parameters, joined
        self.modules = set(modules)
        self._aliases: dict[int, list[str]] = {}
        for name, module in modules.items():
            self._aliases.setdefault(id(module), []).append(name)
        self._by_name = modules
        self._branches = branches
        self._calls = ModuleCalls(flow, dataflow, calls)
        self._reductions = Reductions(dataflow, self._calls, branches if joined in ("stream", "factor") else [])
        self._costly = {product.node.index for product in flow.products}
        self._names = sorted((each, name) for name, (_, names, _) in parameters.items() for each in names)

    def names(self, place: str) -> list[str]:
        """All names of a module, by its first one."""
        return self._aliases[id(self._by_name[place])]

    # ---- the two mechanisms

    def all(self) -> Iterator[tuple[list[Branch], dict[str, str] | None]]:
        """Branches that go together or alone, with the way to take them out."""
        for alike in self._alike():
            removal = self.of(alike)
            if removal is not None or len(alike) == 1:
                yield alike, removal
            else:  # some run inside others, say
                yield from (([branch], self.of([branch])) for branch in alike)

    def _alike(self) -> list[list[Branch]]:
        """The branches, those together that run the same modules with parameters."""
        found: dict[object, list[Branch]] = {}
        for branch in self._branches:
            own = {name for i in self._calls.own(branch) for name in self._calls.running(i)}
            key = frozenset(name for name in own if self._trainable(name))
            found.setdefault(key or branch, []).append(branch)
        return list(found.values())

    def of(self, branches: list[Branch]) -> dict[str, str] | None:
        """What to replace by what, so that all these branches go; ``None`` if there is no way."""
        arounds = [self._calls.around(branch) for branch in branches]
        beside = self.joined in ("sum", "concat")  # no module is left to do nothing
        removal: dict[str, str] | None = None if beside else self._whole(branches, arounds)
        if removal is None:
            inside = [self._calls.own(branch) for branch in branches]
            everywhere = [i for calls in inside for i in calls]
            replaced = self._one if self.joined == "factor" else self._replace_inside
            ways = [
                replaced(branch, [i for i in calls if self._calls.only_in(i, everywhere)])
                for branch, calls in zip(branches, inside, strict=True)
            ]
            removal = ways[0]
            if any(way != removal for way in ways):
                return None
        if removal is None or not any(not self.tensors[name][2] for name in self.parameters(removal)):
            return None
        # What goes must not be read by anything that stays.
        gone = set(self.nodes(branches, removal))
        for branch, around in zip(branches, arounds, strict=True):
            gone |= {branch.add.index} | self._tail(around, removal)
        for name in self.parameters(removal):
            if not gone.issuperset(self.dataflow.readers.get(self.tensors[name][0].index, [])):
                return None
        return {alias: kind for name, kind in removal.items() for alias in self._every_name(name)}

    def joint(self) -> list[tuple[str, str, list[Branch]]]:
        """Modules that do nothing without two or more branches, wherever they run: (module, kind, branches)."""
        return self._reductions.joint()

    def _every_name(self, place: str) -> list[str]:
        return self.names(place) if place in self.modules else [place]

    def _whole(self, branches: list[Branch], arounds: list[int | None]) -> dict[str, str] | None:
        """The module around each branch, if it does nothing without it wherever it runs."""
        removal: dict[str, str] = {}
        for branch, around in zip(branches, arounds, strict=True):
            reduced = None if around is None else self._reductions.of(around)
            if around is None or reduced is None or reduced[0] != [branch]:
                return None
            if removal.setdefault(self._calls.calls[around].module, reduced[1]) != reduced[1]:
                return None
        return removal if sum(len(self._calls.times[name]) for name in removal) == len(branches) else None

    # ---- what a removal takes along

    def parameters(self, removal: dict[str, str]) -> list[str]:
        """Parameters and buffers, by first name, all of whose names go."""
        found: dict[str, None] = {}
        removal = {alias: kind for place, kind in removal.items() for alias in self._every_name(place)}
        for place in removal:
            if place in self.tensors:
                found[place] = None
            for name in self._below(place):
                names = self.tensors[name][1]
                if len(names) == 1 or all(_is_below(each, removal) for each in names):
                    found[name] = None
        return list(found)

    def _below(self, place: str) -> list[str]:
        """First names of the parameters and buffers of a module and of those inside it."""
        return [name for _, name in self._names[slice(*self._range(place))]]

    def _range(self, place: str) -> tuple[int, int]:
        start, end = (bisect_left(self._names, (f"{place}{after}",)) for after in "./")  # "/" comes right after "."
        return start, end

    def nodes(self, branches: list[Branch], removal: dict[str, str]) -> list[int]:
        """Nodes that go with branches: their members, and what replaced modules compute for nobody."""
        found = {n for branch in branches for n in branch.members}
        for place in removal:
            for i in self._calls.times.get(place, ()):
                call = self._calls.calls[i]
                found.update(n for n in range(call.start, call.end) if not self.dataflow.live[n])
        return sorted(found)

    def weights(self, removal: dict[str, str]) -> set[str]:
        """Modules whose own parameters go."""
        return {name.rpartition(".")[0] for name in self.parameters(removal) if not self.tensors[name][2]}

    def name(self, removal: dict[str, str]) -> str:
        """The module that holds most of what goes."""
        sizes = {
            place: sum(math.prod(self.tensors[name][0].shape) for name in self._below(place))
            for place in removal
            if place in self.modules
        }
        return max(sizes, key=lambda place: sizes[place])

    def tail(self, branches: list[Branch], removal: dict[str, str]) -> tuple[str, ...]:
        """Modules that run inside what goes, and outside of the branches."""
        own = set(self.nodes(branches, removal)) | {branch.add.index for branch in branches}
        inside = (i for place in removal for i in self._calls.times.get(place, ()))
        return tuple(dict.fromkeys(name for i in inside for name in self._calls.running_outside(i, own)))

    def _tail(self, around: int | None, removal: dict[str, str]) -> set[int]:
        """Everything in a module that goes as a whole."""
        if around is None:
            return set()
        call = self._calls.calls[around]
        return set(range(call.start, call.end)) if call.module in removal else set()

    # ---- modules of the branch

    def _replace_inside(self, branch: Branch, inside: list[int]) -> dict[str, str] | None:
        covered = {n for i in inside for n in range(self._calls.calls[i].start, self._calls.calls[i].end)}
        loose = [self.dataflow.nodes[n] for n in branch.members if n not in covered]
        if any(node.index in self._costly for node in loose):
            return None
        path = self._zeroed(branch.value, branch, inside, {node.index for node in loose})
        if path is None:
            return None
        zeros, through = path
        keeps = [self._calls.keeps_shape(i) for i in inside if i not in zeros]
        if self._rigid(loose, covered, zeros, through) and not all(keeps):
            return None
        shaped = branch.position == 0 and branch.add.op.endswith("_")
        meets = through | self._behind(loose, zeros)
        if self.joined == "concat" and meets:  # nothing but the concatenation takes what is empty
            return None
        shaped = shaped or any(self.dataflow.nodes[n].op.rstrip("_") not in _BROADCASTS for n in meets)
        if shaped and not all(self._calls.keeps_shape(i) for i in zeros):
            return None
        # What an operator reads and what it adds to others may be trimmed apart.
        alike = self.joined == "stream" and all(self._reaching(i, zeros, inside) == branch.value.shape for i in zeros)
        base = "zeros" if shaped else "zero" if alike else f"zero{len(branch.value.shape)}"
        if self.joined == "concat":
            base = "empty"
        removal = {}
        for i in sorted(inside):
            call, main, given = self._calls.calls[i], self._calls.main(i), self._calls.input(i)
            items = None if main is None else self._calls.items(i, main)
            if items is ... or given is None:
                return None
            identity = "identity" if call.arity == 1 else "first"
            removal[call.module] = kind_of(base if i in zeros else identity, given[0], items)
        return removal | dict.fromkeys(self._loose_parameters(loose), "scalar")

    def _one(self, branch: Branch, inside: list[int]) -> dict[str, str] | None:
        """The module that is all of a factor becomes a one."""
        if len(inside) != 1 or self._calls.main(inside[0]) is not branch.value:
            return None
        call, given = self._calls.calls[inside[0]], self._calls.input(inside[0])
        items = self._calls.items(inside[0], branch.value)
        if given is None or items is ... or not all(call.start <= n < call.end for n in branch.members):
            return None
        return {call.module: kind_of("one", given[0], items)}

    def _trainable(self, place: str) -> bool:
        """Whether a module has parameters of its own."""
        return any(
            name.rpartition(".")[0] == place and not self.tensors[first][2]
            for name, first in self._names[slice(*self._range(place))]
        )

    def _zeroed(
        self, value: Value, branch: Branch, inside: list[int], loose: set[int]
    ) -> tuple[set[int], set[int]] | None:
        """The module calls to become zero, so that ``value`` is, and the loose nodes behind; ``None`` if none can."""
        returns = {main.index: i for i in inside if (main := self._calls.main(i)) is not None}  # of several the last
        if value.index in returns:
            return {returns[value.index]}, set()
        node = value.producer
        if node is None or node.index not in loose:
            return None
        op = node.op.rstrip("_")
        operands = node.inputs if op in _LINEAR_IN_ALL or op == "mul" else node.inputs[:1]
        numbers = [each for each in node.args[:2] if isinstance(each, (int, float))] if op in ("add", "sub") else []
        nothing = len(numbers) == 1 and numbers[0] == 0  # as sum() begins with
        lacks = op in _LINEAR_IN_ALL and len(node.inputs) < len(node.args[:2]) and not nothing
        if op not in _ZERO_IN_ZERO_OUT or lacks:
            return None
        ways = [self._zeroed(operand, branch, inside, loose) for operand in operands]
        found = [way for way in ways if way is not None]
        if not found or (op in _LINEAR_IN_ALL and len(found) < len(ways)):
            return None
        taken = found if op in _LINEAR_IN_ALL else found[:1]
        return {i for calls, _ in taken for i in calls}, {node.index}.union(*(through for _, through in taken))

    def _behind(self, loose: list[Node], zeros: set[int]) -> set[int]:
        """The loose nodes that a zero reaches: also those beside the branch's way, like the gate of ``y * f(y)``."""
        reached = {n for i in zeros for n in range(self._calls.calls[i].start, self._calls.calls[i].end)}
        behind: set[int] = set()
        for node in loose:
            whole = [value for value in node.inputs if value.producer is None or value.producer.index not in reached]
            if len(whole) < len(node.inputs):
                behind.add(node.index)
                if all(value.shape != node.outputs[0].shape for value in whole):  # else it broadcasts to all of it
                    reached.add(node.index)
        return behind

    def _rigid(self, loose: list[Node], covered: set[int], zeros: set[int], through: set[int]) -> bool:
        """Whether a loose node needs what identities hand it to have the shape that it had.

        What comes from a zero broadcasts, and what does not come from a module of the branch is what it was.
        """
        zero = through | {n for i in zeros for n in range(self._calls.calls[i].start, self._calls.calls[i].end)}
        changed = set(covered)
        for node in loose:
            given = [value.producer.index for value in node.inputs if value.producer is not None]
            own = [n for n in given if n in changed and n not in zero]
            changed |= {node.index} if any(n in changed for n in given) else set()
            if own and (len(node.inputs) > 1 or node.op.rstrip("_") not in _SAFE_ON_ANY_SHAPE):
                return True
        return False

    def _reaching(self, zero: int, zeros: set[int], inside: list[int]) -> tuple[int, ...] | None:
        """The shape of what reaches the zero through identities."""
        returned = {main.index: i for i in inside if i not in zeros and (main := self._calls.main(i)) is not None}
        given = self._calls.input(zero)
        while given is not None:
            value = given[1]
            node = value.producer
            if value.index in returned:
                given = self._calls.input(returned.pop(value.index))
            elif node is not None and len(node.inputs) == 1 and node.op.rstrip("_") in _SAFE_ON_ANY_SHAPE:
                given = 0, node.inputs[0]
            else:
                return value.shape
        return None

    def _loose_parameters(self, loose: list[Node]) -> list[str]:
        """Parameters that modules which stay use in the branch alone, and themselves; those that can be a scalar."""
        found: dict[str, None] = {}
        inside = {node.index for node in loose}
        for node in loose:
            for value in node.inputs:
                if value.param in self.tensors and len(self.tensors[value.param][1]) == 1:
                    users = [self.dataflow.nodes[n] for n in self.dataflow.readers.get(value.index, [])]
                    if all(user.index in inside and user.op.rstrip("_") in _SCALAR_OK for user in users):
                        found[value.param] = None
        return list(found)


def _is_below(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)
