"""How a block can be taken out of the module tree.

The forward of a user's module cannot be rewritten, but what it calls can be replaced:

- *Whole module*: the smallest module around the branch and its addition returns its argument once the branch is gone
  (and a trailing ReLU meets values that are not negative anyway). It becomes an identity.
- *Branch modules*: of the modules that exist for the branch alone, the last becomes a zero and the others identities.
  Operators of the branch that lie in the forward of a module that stays (a reshape between two modules, a layer scale)
  go on running, on values nobody needs: so they must be cheap, and the identities must keep shapes for them.

A branch with neither is no block. ``joint`` finds modules that do nothing only when several blocks are gone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from compressor.graph.dataflow import Dataflow
from compressor.graph.flow import Flow
from compressor.graph.ranges import idempotent, ranges
from compressor.graph.record import ModuleCall, Node, Value

_NO_OPS = {"clone", "alias", "detach", "contiguous", "dropout"}
_SCALAR_OK = {"mul", "add", "sub"}
_ZERO_IN_ZERO_OUT = {"view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "unsqueeze",
                     "squeeze", "contiguous", "clone", "alias", "detach", "_to_copy", "slice", "roll", "flip", "expand",
                     "dropout", "native_dropout", "mul", "relu", "gelu", "silu", "tanh", "hardswish"}  # fmt: skip
_SAFE_ON_ANY_SHAPE = {"relu", "gelu", "silu", "tanh", "sigmoid", "hardswish", "hardtanh", "relu6", "dropout", "clone",
                      "detach", "alias", "contiguous"}  # fmt: skip


@dataclass(eq=False)
class Branch:
    """``add`` sums ``value``, its operand number ``position`` that ``members`` compute, and ``stream``."""

    add: Node
    position: int
    value: Value
    stream: Value
    root: int
    members: list[int]


Parameters = dict[str, tuple[Value, tuple[str, ...], bool]]


class Removals:
    """Ways to take out the branches of one recording."""

    def __init__(
        self, flow: Flow, dataflow: Dataflow, calls: list[ModuleCall], parameters: Parameters, branches: list[Branch]
    ) -> None:
        self.flow, self.dataflow, self.calls, self.tensors = flow, dataflow, calls, parameters
        self.modules = set(flow.modules)
        self.by_add = {branch.add.index: branch for branch in branches}
        self._children: list[list[int]] = [[] for _ in calls]
        self._times: dict[str, list[int]] = {}
        for i, call in enumerate(calls):
            if call.parent >= 0:
                self._children[call.parent].append(i)
            self._times.setdefault(call.module, []).append(i)
        self._alive = [0]
        for live in dataflow.live[:-1]:
            self._alive.append(self._alive[-1] + live)
        self._costly = {product.node.index for product in flow.products}
        self._ranges = ranges(dataflow.nodes)
        self._names = sorted((each, name) for name, (_, names, _) in parameters.items() for each in names)
        self._reduced: dict[int, tuple[list[Branch], str] | None] = {}

    # ---- the two mechanisms

    def of(self, branch: Branch) -> dict[str, str] | None:
        """What to replace by what; ``None`` if there is no way."""
        around = self._around(branch)
        if around is None:
            return None
        removal: dict[str, str] | None = None
        reduced = self._reduce(around)
        if reduced is not None and reduced[0] == [branch]:
            removal = {self.calls[around].module: reduced[1]}
        else:
            removal = self._replace_inside(branch, around)
        if removal is None or not any(not self.tensors[name][2] for name in self.parameters(removal)):
            return None
        # What goes must not be read by anything that stays.
        gone = set(self.nodes(branch, removal)) | {branch.add.index} | self._tail(branch, around, removal)
        for name in self.parameters(removal):
            if not gone.issuperset(self.dataflow.readers.get(self.tensors[name][0].index, [])):
                return None
        return removal

    def joint(self) -> list[tuple[str, str, list[Branch]]]:
        """Modules that do nothing without two or more branches: (module, kind, branches)."""
        found = []
        for branch in self.by_add.values():
            around = self._around(branch)
            if around is None:
                continue
            reduced = self._reduce(around)
            if reduced is not None and len(reduced[0]) > 1 and reduced[0][0] is branch:
                found.append((self.calls[around].module, reduced[1], reduced[0]))
        return found

    # ---- what a removal takes along

    def parameters(self, removal: dict[str, str]) -> list[str]:
        """Parameters and buffers, by first name, all of whose names go."""
        found: dict[str, None] = {}
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
        start, end = (bisect_left(self._names, (f"{place}{after}",)) for after in "./")  # "/" comes right after "."
        return [name for _, name in self._names[start:end]]

    def nodes(self, branch: Branch, removal: dict[str, str]) -> list[int]:
        """Nodes that go with a branch: its members, and what replaced modules compute for nobody."""
        found = set(branch.members)
        for place in removal:
            for i in self._times.get(place, ()):
                call = self.calls[i]
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

    # ---- whole modules

    def _around(self, branch: Branch) -> int | None:
        """The innermost module call with the whole branch and its addition."""
        i = branch.add.scope
        while i >= 0:
            call = self.calls[i]
            if call.start <= branch.members[0] and branch.add.index < call.end:
                return i
            i = call.parent
        return None

    def _reduce(self, i: int) -> tuple[list[Branch], str] | None:
        """The branches, in order, without which module call ``i`` returns its argument, and the kind of stub."""
        if i not in self._reduced:
            self._reduced[i] = self._reduction(self.calls[i])
        return self._reduced[i]

    def _reduction(self, call: ModuleCall) -> tuple[list[Branch], str] | None:
        if not call.module or len(self._times[call.module]) != 1 or call.first is None or call.output is None:
            return None
        branches: list[Branch] = []
        tail = 0
        value = call.output
        while value is not call.first:
            node = value.producer
            if node is None or node.index < call.start:
                return None
            branch = self.by_add.get(node.index)
            if branch is not None:
                branches.append(branch)
                value = branch.stream
                continue
            if not (node.op in _NO_OPS or idempotent(node, self._ranges.get(call.first.index))):
                return None
            value = node.inputs[0]
            tail += 1
        members = {n for branch in branches for n in branch.members}
        if any(not call.start <= n < call.end for n in members):
            return None
        if self._alive[call.end] - self._alive[call.start] != len(members) + len(branches) + tail:
            return None
        kind = "identity" if call.arity == 1 and not call.none_items else "first"
        return branches[::-1], f"{kind}+{call.none_items}" if call.none_items else kind

    def _tail(self, branch: Branch, around: int, removal: dict[str, str]) -> set[int]:
        """Everything in a module that goes as a whole."""
        call = self.calls[around]
        return set(range(call.start, call.end)) if call.module in removal else set()

    # ---- modules of the branch

    def _replace_inside(self, branch: Branch, around: int) -> dict[str, str] | None:
        inside = self._own_calls(branch, around)
        inside = [i for i in inside if self._only_here(i, inside)]
        covered = {n for i in inside for n in range(self.calls[i].start, self.calls[i].end)}
        loose = [self.dataflow.nodes[n] for n in branch.members if n not in covered]
        if any(node.index in self._costly for node in loose):
            return None
        zero, shaped = self._zero_call(branch, inside, {node.index for node in loose})
        if zero is None:
            return None
        keeps = [self._keeps_shape(self.calls[i]) for i in inside if i != zero and self.calls[i].first is not None]
        rigid = any(len(n.inputs) > 1 or n.op.rstrip("_") not in _SAFE_ON_ANY_SHAPE for n in loose)
        if rigid and not all(keeps):
            return None
        if (shaped or rigid) and not self._keeps_shape(self.calls[zero]):
            return None
        if not rigid and self._reaching(zero, inside) != branch.stream.shape:
            return None
        if any(self.calls[i].first is None or self.calls[i].output is None for i in inside):
            return None
        removal = {}
        for i in sorted(inside):
            call = self.calls[i]
            kind = ("zeros" if shaped else "zero") if i == zero else "identity" if call.arity == 1 else "first"
            if kind == "identity" and call.none_items:
                kind = "first"
            removal[call.module] = f"{kind}+{call.none_items}" if call.none_items else kind
        scalars = self._loose_parameters(loose)
        return None if scalars is None else removal | dict.fromkeys(scalars, "scalar")

    def _own_calls(self, branch: Branch, around: int) -> list[int]:
        """The outermost module calls that do nothing but for the branch."""
        found: list[int] = []
        made = {value.index for n in branch.members for value in self.dataflow.nodes[n].outputs}
        pending = list(reversed(self._children[around]))
        while pending:
            i = pending.pop()
            call = self.calls[i]
            alive = self._alive[call.end] - self._alive[call.start]
            own = bisect_left(branch.members, call.end) - bisect_left(branch.members, call.start)
            if alive == own if alive else call.first is not None and call.first.index in made:
                found.append(i)
            elif own:
                pending += reversed(self._children[i])
        return found

    def _only_here(self, i: int, inside: list[int]) -> bool:
        """Whether a module runs nowhere but in the branch."""
        name = self.calls[i].module
        if not name:
            return False
        return all(
            j in inside or any(self.calls[k].start <= self.calls[j].start < self.calls[k].end for k in inside)
            for j in self._times[name]
        )

    def _zero_call(self, branch: Branch, inside: list[int], loose: set[int]) -> tuple[int | None, bool]:
        """The module call to become zero, and whether its zeros need a shape."""
        returns = {}
        for i in inside:  # of several that hand on the same value the last
            output = self.calls[i].output
            if output is not None:
                returns[output.index] = i
        shaped = branch.position == 0 and branch.add.op == "add_"
        value = branch.value
        while value.index not in returns:
            node = value.producer
            if node is None or node.index not in loose or node.op.rstrip("_") not in _ZERO_IN_ZERO_OUT:
                return None, False
            own = [
                v for v in node.inputs if v.producer is not None and self.dataflow.serves(v.producer.index, branch.root)
            ]
            if not own:
                return None, False
            value, shaped = own[0], True
        return returns[value.index], shaped

    def _reaching(self, zero: int, inside: list[int]) -> tuple[int, ...] | None:
        """The shape of what reaches the zero through identities."""
        returned = {call.output.index: call for i in inside if i != zero and (call := self.calls[i]).output is not None}
        value = self.calls[zero].first
        while value is not None:
            node = value.producer
            if value.index in returned:
                value = returned.pop(value.index).first
            elif node is not None and len(node.inputs) == 1 and node.op.rstrip("_") in _SAFE_ON_ANY_SHAPE:
                value = node.inputs[0]
            else:
                return value.shape
        return None

    def _keeps_shape(self, call: ModuleCall) -> bool:
        """Whether the output has the argument's shape, now and after any trim."""
        a, b = call.first, call.output
        if a is None or b is None or a.shape != b.shape:
            return False
        find = self.flow.labels.find
        for x, y in zip(a.axes, b.axes, strict=True):
            if self.flow.is_fixed(x) and self.flow.is_fixed(y):
                continue
            if x is None or y is None or not (find(x) == find(y)).all():
                return False
        return True

    def _loose_parameters(self, loose: list[Node]) -> list[str] | None:
        """Parameters that modules which stay use in the branch themselves; ``None`` if one cannot be a scalar."""
        found: dict[str, None] = {}
        inside = {node.index for node in loose}
        for node in loose:
            for value in node.inputs:
                if value.param is None:
                    continue
                readers = self.dataflow.readers.get(value.index, [])
                if value.param not in self.tensors or len(self.tensors[value.param][1]) > 1:
                    return None
                if not inside.issuperset(readers) or node.op.rstrip("_") not in _SCALAR_OK:
                    return None
                found[value.param] = None
        return list(found)


def _is_below(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)
