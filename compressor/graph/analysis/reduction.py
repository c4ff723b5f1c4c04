"""Modules that return their argument once branches inside are gone."""

from __future__ import annotations

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.module_calls import Branch, ModuleCalls
from compressor.graph.analysis.value_ranges import idempotent, ranges
from compressor.graph.recording.values import Key, ModuleCall, Node, Value
from compressor.nn.stubs import kind_of

_NO_OPS = {"clone", "alias", "detach", "contiguous", "dropout"}


class Reductions:
    """What is left of module calls without their branches."""

    def __init__(self, dataflow: Dataflow, calls: ModuleCalls, branches: list[Branch]) -> None:
        self._calls = calls
        self._branches = branches
        self._by_add = {branch.add.index: branch for branch in branches}
        self._ranges = ranges(dataflow.nodes)
        self._known: dict[int, tuple[list[Branch], str] | None] = {}

    def of(self, i: int) -> tuple[list[Branch], str] | None:
        """The branches, in order, without which call ``i`` returns its argument, and the kind of stub."""
        if i not in self._known:
            self._known[i] = self._reduction(i)
        return self._known[i]

    def joint(self) -> list[tuple[str, str, list[Branch]]]:
        """Modules that do nothing without two or more branches, wherever they run: (module, kind, branches)."""
        found: dict[str, tuple[set[str], list[Branch], int]] = {}
        for i in dict.fromkeys(self._calls.around(branch) for branch in self._branches):
            reduced = None if i is None else self.of(i)
            if i is not None and reduced is not None and len(reduced[0]) > 1:
                module = self._calls.calls[i].module
                kinds, branches, times = found.get(module, (set(), [], 0))
                found[module] = kinds | {reduced[1]}, branches + reduced[0], times + 1
        return [
            (module, kinds.pop(), branches)
            for module, (kinds, branches, times) in found.items()
            if len(kinds) == 1 and times == len(self._calls.times[module])
        ]

    def _reduction(self, i: int) -> tuple[list[Branch], str] | None:
        call = self._calls.calls[i]
        for result in call.returns() if call.module else ():
            found = self._way_back(call, i, result)
            items = None if found is None else self._calls.items(i, result)
            if found is not None and items is not ...:
                return found[0], kind_of("identity" if call.arity == 1 else "first", found[1], items)
        return None

    def _way_back(self, call: ModuleCall, i: int, value: Value) -> tuple[list[Branch], Key] | None:
        """The branches, in order, without which ``value`` is an argument of the call, and which. Nothing else runs."""
        arguments = {argument.index: key for key, argument in reversed(call.inputs.items())}
        branches: list[Branch] = []
        tail: list[Node] = []
        while value.index not in arguments:
            node = value.producer
            if node is None or node.index < call.start:
                return None
            branch = self._by_add.get(node.index)
            if branch is not None and branch.plain:
                branches.append(branch)
                value = branch.stream
            elif node.inputs:
                tail.append(node)
                value = node.inputs[0]
            else:
                return None
        known = self._ranges.get(value.index)
        if not all(node.op in _NO_OPS or idempotent(node, known) for node in tail):
            return None
        members = {n for branch in branches for n in branch.members}
        if any(not call.start <= n < call.end for n in members):
            return None
        if self._calls.alive(i) != len(members) + len(branches) + len(tail):
            return None
        return branches[::-1], arguments[value.index]
