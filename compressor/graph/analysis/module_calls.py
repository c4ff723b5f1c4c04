"""The module calls of a recording, as taking modules out asks about them: what runs inside, what comes in and out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Key, ModuleCall, Node, Value


@dataclass(eq=False)
class Branch:
    """``add`` sums ``value``, its operand number ``position`` that ``members`` compute, and ``stream``.

    ``plain`` says that the sum without the branch is ``stream`` itself, not a multiple of it.
    """

    add: Node
    position: int
    value: Value
    stream: Value
    root: int
    members: list[int]
    plain: bool = True


class ModuleCalls:
    """Module calls by their index, in the order in which they began."""

    def __init__(self, flow: Flow, dataflow: Dataflow, calls: list[ModuleCall]) -> None:
        self._flow, self._dataflow, self.calls = flow, dataflow, calls
        self.times: dict[str, list[int]] = {}
        self._children: list[list[int]] = [[] for _ in calls]
        for i, call in enumerate(calls):
            if call.parent >= 0:
                self._children[call.parent].append(i)
            self.times.setdefault(call.module, []).append(i)
        self._alive = [0]
        for live in dataflow.live[:-1]:
            self._alive.append(self._alive[-1] + live)
        self._own: dict[int, list[int]] = {}

    def alive(self, i: int) -> int:
        """The number of live nodes in a call."""
        return self._alive[self.calls[i].end] - self._alive[self.calls[i].start]

    def running(self, i: int) -> Iterable[str]:
        """The modules that run in a call, its own first."""
        end = self.calls[i].end
        return (call.module for call in takewhile(lambda call: call.start < end, islice(self.calls, i, None)))

    def running_outside(self, i: int, own: set[int]) -> Iterable[str]:
        """The modules without children that run in a call and compute what none of the nodes ``own`` does."""
        end, last = self.calls[i].end, len(self.calls)
        for j in range(i + 1, last):
            call = self.calls[j]
            if call.start >= end:
                return
            if not self._children[j] and any(n not in own for n in range(call.start, min(call.end, end))):
                yield call.module

    def around(self, branch: Branch) -> int | None:
        """The innermost call with the whole branch and its addition."""
        i = branch.add.scope
        while i >= 0:
            call = self.calls[i]
            if call.start <= branch.members[0] and branch.add.index < call.end:
                return i
            i = call.parent
        return None

    def own(self, branch: Branch) -> list[int]:
        """The outermost calls that do nothing but for the branch, of those that a stub can stand for."""
        known = self._own.get(branch.root)  # of one sum several operands may be branches
        if known is None:
            known = self._own[branch.root] = self._find_own(branch)
        return known

    def _find_own(self, branch: Branch) -> list[int]:
        around = self.around(branch)
        if around is None:
            return []
        found: list[int] = []
        made = {value.index for n in branch.members for value in self._dataflow.nodes[n].outputs}
        pending = list(reversed(self._children[around]))
        while pending:
            i = pending.pop()
            call, alive = self.calls[i], self.alive(i)
            own = bisect_left(branch.members, call.end) - bisect_left(branch.members, call.start)
            only = alive == own if alive else call.first is not None and call.first.index in made
            if only and call.first is not None and self.main(i) is not None:
                found.append(i)
            elif own:
                pending += reversed(self._children[i])
        return found

    def only_in(self, i: int, inside: list[int]) -> bool:
        """Whether a call's module runs nowhere but in the calls ``inside``."""
        name = self.calls[i].module
        return bool(name) and all(
            j in inside or any(self.calls[k].start <= self.calls[j].start < self.calls[k].end for k in inside)
            for j in self.times[name]
        )

    # ---- what comes in and out

    def main(self, i: int) -> Value | None:
        """The one tensor that a call returns for somebody to read."""
        returned = self.calls[i].returns()
        read = [value for value in returned if not self._unread(value)]
        return read[0] if len(read) == 1 else returned[0] if len(returned) == 1 else None

    def input(self, i: int) -> tuple[Key, Value] | None:
        """The argument to return in place of the result: the first tensor of its shape, else the first tensor."""
        main, inputs = self.main(i), self.calls[i].inputs
        alike = ((key, value) for key, value in inputs.items() if main is not None and value.shape == main.shape)
        return next(alike, next(iter(inputs.items()), None))

    def items(self, i: int, main: Value) -> tuple[Key | None, ...] | Any:
        """What a call's stub returns around ``main``, as ``stubs.kind_of`` takes it; ``...`` if it cannot."""
        returned = self.calls[i].returned
        if not isinstance(returned, tuple):
            return None
        found: list[Key | None] = []
        for item in returned:
            if item is main and "tensor" not in found:
                found.append("tensor")
            elif isinstance(item, Value) and self._unread(item):
                found.append(None)
            elif item is None or isinstance(item, (int, str)):
                found.append(item)
            else:
                return ...
        return tuple(found)

    def keeps_shape(self, i: int) -> bool:
        """Whether the result has the input's shape, now and after any trim."""
        given, b = self.input(i), self.main(i)
        if given is None or b is None or given[1].shape != b.shape:
            return False
        find = self._flow.labels.find
        for x, y in zip(given[1].axes, b.axes, strict=True):
            if self._flow.is_fixed(x) and self._flow.is_fixed(y):
                continue
            if x is None or y is None or not (find(x) == find(y)).all():
                return False
        return True

    def _unread(self, value: Value) -> bool:
        return not self._dataflow.readers.get(value.index) and value.index not in self._dataflow.outputs
