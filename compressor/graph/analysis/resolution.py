"""Residual branches that can compute at a lower resolution than their stream.

Between a branch's first module and its last, everything may run on fewer samples if it takes any number: convolutions
of stride 1 that keep the shape, pointwise operators, normalisation, global pooling and what follows from it. What the
branch reads is resampled before the modules that read it, what it adds is resampled back after its last one, so
nothing outside changes: not the stream, nor a head that fixes its input's size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from compressor.graph.analysis.module_calls import Branch
from compressor.graph.axis import Axis
from compressor.graph.graph import Block, Resolution
from compressor.graph.groups import Frequencies, Group
from compressor.graph.recording.values import ModuleCall, Node, Value

SHORTEST, LONGEST = 4, 1024  # samples along an axis; matrices of longer ones cost more than they save

_ANY = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_group_norm", "dropout",
        "native_dropout", "clone", "detach", "alias", "contiguous", "_to_copy", "new_zeros",
        "zeros_like"}  # fmt: skip
_CONVOLUTIONS = ("convolution", "_convolution")
_POOLS = {"mean", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_avg_pool1d", "amax"}


@dataclass(eq=False)
class Spatial:
    """A branch whose ``axes`` (one per spatial axis) may shrink.

    Attributes:
        nodes: the operators that run at the branch's resolution.
        ends: storages that hold the stream's resolution at their end.
        readers: first and last node that read the stream.
    """

    found: Resolution
    stream: Value
    nodes: frozenset[int]
    lengths: tuple[int, ...]
    ends: set[int]
    readers: tuple[int, int]

    def scales(self, node: int, value: Value) -> bool:
        """Whether ``value``, computed by ``node``, is at the branch's resolution."""
        return node in self.nodes and _is_map(value.shape, self.lengths)


@dataclass
class Resolutions:
    """What ``find_resolutions`` found, and why the other blocks keep theirs."""

    spatial: list[Spatial] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)

    def of(self, node: int) -> Spatial | None:
        return next((s for s in self.spatial if node in s.nodes), None)

    @property
    def units(self) -> int:
        """One for every frequency above zero, which always stays."""
        return sum(n // 2 for spatial in self.spatial for n in spatial.lengths)

    def number(self, first: int, axes: list[Axis]) -> int:
        """Number the units from ``first`` and add the axes to ``axes``; returns the number of all units."""
        total, start = first + self.units, first
        for spatial in self.spatial:
            for axis, n in zip(spatial.found.axes, spatial.lengths, strict=True):
                units = start + (np.arange(n) - 1) // 2  # two samples per frequency, one for the last if n is even
                units[0] = total
                axis.index, axis.factors = len(axes), units.reshape(-1, 1)
                axes.append(axis)
                start += n // 2
        return total

    def groups(self, first: int, blocks: list[Block]) -> list[Group]:
        """A group per axis, which goes with its block."""
        found: list[Group] = []
        for spatial in self.spatial:
            block = blocks[spatial.found.block]
            for d, axis in enumerate(spatial.found.axes):
                units = np.unique(axis.factors[1:, 0])
                found.append(Frequencies(first + len(found), f"{block.name}.resolution[{d}]", units, width=2))
                block.groups = (*block.groups, found[-1].index)
        return found


class _NotPossibleError(Exception):
    pass


def find_resolutions(
    branches: list[list[Branch]], names: list[str], nodes: list[Node], calls: list[ModuleCall]
) -> Resolutions:
    """Which blocks may lower their resolution, by the branches and names of each."""
    result = Resolutions()
    times: dict[str, int] = {}
    for call in calls:
        times[call.module] = times.get(call.module, 0) + 1
    taken: set[int] = set()
    for index, alike in enumerate(branches):
        try:
            if len(alike) > 1:
                raise _NotPossibleError("it is used several times")
            spatial = _spatial(index, alike[0], nodes, [c for c in calls if times[c.module] == 1])
            if taken & spatial.nodes:
                raise _NotPossibleError("it lies around or inside another")
        except _NotPossibleError as reason:
            result.whole[names[index]] = str(reason)
            continue
        taken |= spatial.nodes
        result.spatial.append(spatial)
    return result


def _spatial(index: int, branch: Branch, nodes: list[Node], calls: list[ModuleCall]) -> Spatial:
    members = frozenset(branch.members)
    stream, readers = _stream(nodes, members)
    lengths = stream.shape[2:]
    if len(lengths) not in (1, 2) or branch.value.shape[2:] != lengths:
        raise _NotPossibleError("its stream is no image or sequence with channels first")
    if min(lengths) < SHORTEST or max(lengths) > LONGEST:
        raise _NotPossibleError(f"its stream has {' x '.join(map(str, lengths))} samples, not {SHORTEST} to {LONGEST}")
    for n in branch.members:
        if not _takes_any_size(nodes[n], lengths):
            raise _NotPossibleError(f"{nodes[n].op} in {nodes[n].place or 'the model'} depends on the size")
    inputs = dict.fromkeys(_entry(n, stream, members, calls) for n in readers)
    output = _exit(branch, members, calls)
    unnumbered = [Axis(-1, np.zeros((n, 1), dtype=np.int64)) for n in lengths]
    found = Resolution(index, tuple(inputs), output, tuple(unnumbered), _kernels(nodes, members))
    return Spatial(found, stream, members, tuple(lengths), {branch.value.storage}, (min(readers), max(readers)))


def _kernels(nodes: list[Node], members: frozenset[int]) -> tuple[str, ...]:
    """The weights of the branch's convolutions with kernels above 1, those that nothing else uses."""
    users: dict[str, list[int]] = {}
    for node in nodes:
        for value in node.inputs:
            if value.param is not None:
                users.setdefault(value.param, []).append(node.index)
    found = []
    for n in sorted(members):
        if nodes[n].op in _CONVOLUTIONS:
            weight = nodes[n].inputs[1]
            name = weight.param if weight.producer is None else None
            if name is not None and users[name] == [n] and max(weight.shape[2:]) > 1:
                found.append(name)
    return tuple(found)


def _stream(nodes: list[Node], members: frozenset[int]) -> tuple[Value, list[int]]:
    """The one value from outside that the branch reads, and by which nodes."""
    outside: dict[int, Value] = {}
    readers = []
    for n in sorted(members):
        for value in nodes[n].inputs:
            if value.param is None and (value.producer is None or value.producer.index not in members):
                outside[value.index] = value
                readers.append(n)
    if len(outside) != 1:
        raise _NotPossibleError("it reads more than its stream")
    return next(iter(outside.values())), readers


def _entry(reader: int, stream: Value, members: frozenset[int], calls: list[ModuleCall]) -> str:
    """The outermost module of the branch that is given the stream and holds the reader."""
    for call in calls:  # outer ones first
        inside = call.start <= reader < call.end and call.first is stream and call.arity == 1
        if inside and members.issuperset(range(call.start, call.end)):
            return call.module
    raise _NotPossibleError("no module of its own reads the stream")


def _exit(branch: Branch, members: frozenset[int], calls: list[ModuleCall]) -> str:
    """The outermost module of the branch that returns its value."""
    for call in calls:
        if call.returned is branch.value and members.issuperset(range(call.start, call.end)):
            return call.module
    raise _NotPossibleError("its last operator is no module's")


def _is_map(shape: tuple[int, ...], lengths: tuple[int, ...]) -> bool:
    return len(shape) == len(lengths) + 2 and tuple(shape[2:]) == tuple(lengths)


def _is_vector(shape: tuple[int, ...]) -> bool:
    """One number per channel at most."""
    return sum(n > 1 for n in shape) <= 1


def _takes_any_size(node: Node, lengths: tuple[int, ...]) -> bool:
    """Whether an operator of the branch does the same at every resolution."""
    op = node.op.rstrip("_") if not node.op.startswith("_") else node.op
    dynamic = [value for value in node.inputs if value.param is None]
    if any(_is_map(value.shape, lengths) for value in node.inputs if value.param is not None):
        return False  # a parameter with a value per position
    y = node.outputs[0]
    maps, out = [_is_map(value.shape, lengths) for value in dynamic], _is_map(y.shape, lengths)
    if not any(maps):
        return not out and _is_vector(y.shape) | (not dynamic)
    if op in _CONVOLUTIONS:
        strides, transposed = node.args[3], bool(node.args[6])
        return maps[0] and out and not transposed and all(int(s) == 1 for s in strides)
    if op in _POOLS:
        return not out and _is_vector(y.shape)
    pointwise = node.overload is not None and torch.Tag.pointwise in node.overload.tags
    if op in _ANY or pointwise:
        return out and all(m or _is_vector(value.shape) for m, value in zip(maps, dynamic, strict=True))
    if op in ("index_select", "index_add"):
        return out and maps.count(True) == len(maps) and int(node.args[1]) == 1
    if op == "cat":
        return out and all(maps) and (node.args[1] if len(node.args) > 1 else 0) == 1
    return False
