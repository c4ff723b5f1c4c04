"""What the example did not reach is neither thrown away nor left behind.

A table cut to the input's length, ``table[: x.shape[1]]``, is read as far as the example is long. Its other entries
carry labels that nothing computed from the inputs carries: nothing says that they could go, as a longer input will
want them.

Parameters that even further passes (``further``) did not reach stay as they are, and so must what they may read or
write: what is at hand where their module would run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import nn

from compressor.arrays import IntArray
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.further import Further
from compressor.graph.recording.values import ModuleCall, Node, Value

Described = Mapping[str, tuple[Value, tuple[str, ...], bool]]
"""Parameters and buffers by their first name, with all names, and whether they are buffers."""


def fix_unseen(flow: Flow, nodes: Iterable[Node], parameters: Described) -> None:
    """Fix the entries of parameters and buffers that no result depends on. Call when all rules have run."""
    labels = flow.labels
    seen = {id(axis): axis for value in _from_inputs(nodes) for axis in value.axes if axis is not None}
    used = [reader.labels for reader in flow.readers] + [each.labels for each in flow.adjustments]
    seen.update((id(axis), axis) for axis in used)
    met = np.zeros(len(labels) + 1, dtype=np.bool_)  # the last entry is for -1, which fills tables of factors
    if seen:
        met[labels.factors(np.concatenate(list(seen.values())), flow.reason("labels nested too deep"))] = True
    own = [(name, axis) for name, (value, _, _) in parameters.items() for axis in value.axes if axis is not None]
    if not own:
        return
    roots = labels.find(np.concatenate([axis for _, axis in own]))
    unseen = labels.are_free(roots) & ~met[roots]
    if not np.count_nonzero(unseen):
        return
    for (name, axis), missed in zip(own, np.split(unseen, np.cumsum([len(axis) for _, axis in own])[:-1]), strict=True):
        if np.count_nonzero(missed):
            labels.fix(axis[missed], flow.reason("the example did not reach it", place=name))


def _from_inputs(nodes: Iterable[Node]) -> list[Value]:
    """Values that depend on more than parameters: on inputs, or on tensors that are no parameters."""
    found: dict[int, Value] = {}
    written: set[int] = set()
    for node in nodes:
        if any(
            v.index in found or v.storage in written or (v.producer is None and v.param is None) for v in node.inputs
        ):
            found.update((value.index, value) for value in node.outputs)
            if node.mutates:
                written.update(value.storage for value in node.outputs)
    return list(found.values())


def tie_unreached(flow: Flow, further: Further, nodes: list[Node], calls: list[ModuleCall]) -> set[str]:
    """Tie what unreached modules may touch to the modules that ran in their place, or fix it. Call after all rules.

    Args:
        nodes, calls: those of the first pass.

    Returns:
        The parameters that nothing reached and that were tied nevertheless.
    """
    for replay in further.replays:
        for a, b in replay.returned:
            for d, n in enumerate(a.shape):
                flow.join(a.axes[d], b.axes[d], n, n)
        # Its place in a row of modules is not known: it may read what any of them reads or gives.
        ends = [*replay.given, *(b for _, b in replay.returned)]
        lengths = {len(axis) for value in ends for axis in value.axes if axis is not None}
        for n in lengths:
            around = [axis for axis in _around(nodes, calls, replay.module) if len(axis) == n]
            for axis in around[1:]:
                flow.labels.unite(around[0], axis)
    tied = {name for name in further.missed if _tie_vector(flow, name, nodes, calls)}
    missed = [name for name in further.missed if name not in tied]
    for name in missed:
        _fix_around(flow, name, missed, nodes, calls)
    return tied


def _tie_vector(flow: Flow, name: str, nodes: list[Node], calls: list[ModuleCall]) -> bool:
    """Tie a vector that a module of the user's own keeps but did not use, such as what stands for masked tokens.

    It is scaled, added or put in place of what is at hand; should it be multiplied with that and summed, it is masked.
    """
    value = flow.parameters[name]
    owner = name.rpartition(".")[0]
    long = [d for d, n in enumerate(value.shape) if n > 1]
    module = flow.modules.get(owner)
    if len(long) != 1 or scope_of(calls, owner) != owner or type(module).__module__.startswith("torch.nn."):
        return False
    n, own = value.shape[long[0]], value.axes[long[0]]
    around = [axis for axis in _around(nodes, calls, owner) if len(axis) == n]
    if own is None or not around or all(flow.is_fixed(axis) for axis in around):
        return False
    for axis in around:
        flow.labels.unite(own, axis)
    flow.node = nodes[0]
    flow.reads(own, (value, long[0]))
    flow.node = None
    return True


def _fix_around(flow: Flow, name: str, missed: list[str], nodes: list[Node], calls: list[ModuleCall]) -> None:
    """Fix what the parameter ``name`` may read or write, going by lengths."""
    owner = name.rpartition(".")[0]
    scope = scope_of(calls, owner)
    own = [n for n in missed if n == name or scope_of(calls, n.rpartition(".")[0]) == scope]
    shapes = {n: flow.parameters[n].shape for n in own}
    written = {shape[0] for shape in shapes.values() if shape}
    around = _around(nodes, calls, owner)
    text = f"{name} was not reached and may read or write it (pass an example for which it runs, longer perhaps)"
    for d, length in enumerate(_widths(flow, name)):
        matching = [axis for axis in around if len(axis) == length]
        if not matching and d == 1 and length not in written:
            matching = around  # several of them, one after the other, or flattened
        elif not matching:  # will be split into several
            matching = [axis for axis in around if length % len(axis) == 0]
        for axis in matching:
            flow.labels.fix(axis, flow.reason(text, place=scope))


def _widths(flow: Flow, name: str) -> list[int]:
    """The lengths of a parameter's axes; those of a convolution without its kernel's."""
    owner = flow.modules.get(name.rpartition(".")[0])
    shape = flow.parameters[name].shape
    kept = shape[:2] if isinstance(owner, nn.modules.conv._ConvNd) else shape
    return [n for n in kept if n > 1]


def scopes(further: Further, tied: set[str], calls: list[ModuleCall]) -> set[str]:
    """The modules in which parameters may be used that nothing reached: what is at hand there has unknown readers."""
    return {scope_of(calls, name.rpartition(".")[0]) for name in further.missed if name not in tied}


def scope_of(calls: list[ModuleCall], module: str) -> str:
    """The innermost module that ran, this one or around it."""
    ran = {call.module for call in calls}
    while module and module not in ran:
        module = module.rpartition(".")[0]
    return module


def _around(nodes: list[Node], calls: list[ModuleCall], module: str) -> list[IntArray]:
    """Labelled axes of what is at hand in the module around ``module``: what passes between its parts."""
    scope = scope_of(calls, module)
    found: dict[int, IntArray] = {}
    for i, call in enumerate(calls):
        if call.module != scope:
            continue
        part = {n: n for n in range(call.start, call.end)}
        for child in (c for c in calls if c.parent == i):
            part.update((n, call.end + child.start) for n in range(child.start, child.end))
        values = [*call.inputs.values(), *call.returns()]
        for n, own in part.items():
            for value in nodes[n].inputs:
                if value.producer is None or part.get(value.producer.index) != own:
                    values.append(value)
        for value in values:
            if value.param is None:
                found.update((id(axis), axis) for axis in value.axes if axis is not None)
    return list(found.values())
