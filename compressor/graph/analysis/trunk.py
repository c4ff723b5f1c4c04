"""The trunk of a network: the chain of tensors through which everything passes, and the layers between them.

A *cut* is an activation that is, at some moment of the pass, all that the rest of the network reads of what was before.
A *layer* is a module that ran once, from one cut to another, with a convolution inside. Modules inside a residual
branch are none, as the stream passes beside them, so layers are as small as the trace allows: a residual block, a
convolution of a plain network. Blocks of the same class or the same place in the module tree as one that cannot be
divided are not divided either: an inverted residual that has no shortcut, say.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from torch import nn

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.recording.forward import Recording
from compressor.graph.recording.values import ModuleCall, Node, Value

CONVOLUTIONS = {"convolution", "_convolution"}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Layer:
    """One layer: nodes ``start`` up to ``end``, spatial sizes of its input and output; ``block`` if it has several
    convolutions and cannot be divided, or is like one that cannot."""

    name: str
    start: int
    end: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    block: bool


def layers(seen: Recording) -> tuple[list[Layer], Dataflow]:
    """The layers of a recording's trunk, in their order, and its dataflow."""
    nodes = seen.recorder.nodes
    dataflow = Dataflow(nodes, [*seen.outputs, *seen.cached])
    return _Trunk(seen, dataflow).layers(), dataflow


def _cuts(nodes: list[Node], dataflow: Dataflow, inputs: list[Value]) -> set[int]:
    """Indices of the values that are, at some moment, all that is still to be read."""
    last = {index: max(readers) for index, readers in dataflow.readers.items()}
    last |= dict.fromkeys(dataflow.outputs, len(nodes))
    still = {value.index for value in inputs if value.index in last}
    dynamic, cuts = set(still), set(still) if len(still) == 1 else set()
    for node in nodes:
        if not dataflow.live[node.index] or not any(value.index in dynamic for value in node.inputs):
            continue
        still -= {value.index for value in node.inputs if last.get(value.index, -1) <= node.index}
        made = {value.index for value in node.outputs if value.index in last}
        dynamic |= made
        still |= {index for index in made if last[index] > node.index}
        if len(still) == 1:
            cuts |= still
    return cuts


class _Trunk:
    def __init__(self, seen: Recording, dataflow: Dataflow) -> None:
        self.calls, self.modules, self.dataflow = seen.recorder.calls, seen.recorder.modules.by_name, dataflow
        self.cuts = _cuts(seen.recorder.nodes, dataflow, seen.inputs)
        self.times = Counter(call.module for call in self.calls)
        self.inside: list[list[int]] = [[] for _ in self.calls]
        self.roots: list[int] = []
        for index, call in enumerate(self.calls):
            (self.inside[call.parent] if call.parent >= 0 else self.roots).append(index)
        self.convolutions = [
            node.index for node in seen.recorder.nodes if node.op in CONVOLUTIONS and dataflow.live[node.index]
        ]

    def layers(self) -> list[Layer]:
        smallest = [i for root in self.roots for i in self._within(root, set(), set())]
        blocks = [i for i in smallest if self._count(self.calls[i]) > 1]
        modules = [(self.calls[i].module, self.modules[self.calls[i].module]) for i in blocks]
        classes = {type(module) for _, module in modules if not isinstance(module, _CONTAINERS)}
        places = {_place(name) for name, _ in modules}
        found = [i for root in self.roots for i in self._within(root, classes, places)]
        return [self._layer(self.calls[i]) for i in found]

    def _within(self, index: int, classes: set[type], places: set[str]) -> list[int]:
        """The layers inside a call, itself if it cannot be divided or is not to be."""
        call = self.calls[index]
        count = self._count(call)
        if count == 0:
            return []
        takes = self._is_candidate(call)
        if takes and self._is_whole(call, classes, places):
            return [index]
        found = [i for child in self.inside[index] for i in self._within(child, classes, places)]
        divided = sum(self._count(self.calls[i]) for i in found) == count
        return found if found and (divided or not takes) else [index] if takes else found

    def _is_whole(self, call: ModuleCall, classes: set[type], places: set[str]) -> bool:
        return type(self.modules[call.module]) in classes or _place(call.module) in places

    def _count(self, call: ModuleCall) -> int:
        return sum(call.start <= n < call.end for n in self.convolutions)

    def _is_candidate(self, call: ModuleCall) -> bool:
        x, y = call.first, call.returned
        if self.times[call.module] > 1 or call.arity != 1 or 0 not in call.inputs or x is None:
            return False
        if not isinstance(y, Value) or x.index == y.index or len(x.shape) != len(y.shape) or len(x.shape) < 3:
            return False
        if x.index not in self.cuts or y.index not in self.cuts:
            return False
        return all(call.start <= n < call.end for n in self.dataflow.readers.get(x.index, ()))

    def _layer(self, call: ModuleCall) -> Layer:
        assert call.first is not None
        assert isinstance(call.returned, Value)
        return Layer(
            call.module, call.start, call.end, call.first.shape[2:], call.returned.shape[2:], self._count(call) > 1
        )


def _place(name: str) -> str:
    """Where a module stands, without the numbers."""
    return re.sub(r"\d+", "#", name)
