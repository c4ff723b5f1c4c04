"""Operators side by side: several branches of one input that are summed, or concatenated along channels.

In ``op1(x) + op2(x) + ...`` or ``cat([op1(x), op2(x), ...])`` each operator can go by itself, as long as one operand is
left: the additive and the concat aggregator of FiGS (section 3.3, figure 1c), and the branches of Inception modules.
What is looked for:

- operands of one sum or concatenation, each computed for it alone from the same values, with multiply-adds;
- two at least of these. A projection beside the branch that it is the shortcut of is none, nor is a residual branch;
- where they are concatenated, channels that belong to the operator alone: no other operand has them, nor has what the
  operator reads. They go with it.

Whether an operator can be taken out of the module tree is decided elsewhere (``removal``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from compressor.arrays import IntArray
from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.lifetimes import Terms, any_of, both
from compressor.graph.analysis.module_calls import Branch
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node, Value

_ADDS = {"add", "add_"}

Operand = Branch | int | None
"""An operator, the node of an addition before, or what stays."""


@dataclass(eq=False)
class Aggregate:
    """One sum or concatenation with the operators it has.

    Attributes:
        branches: the operators that may go.
        others: how many operands stay in any case, of those that are as large as the result or have channels.
        node: the last operator of the sum, or the concatenation.
        concat: whether it is one.
        sums: of a sum, its additions in order, each with its two operands.
        reads: by root of an operator, what it reads besides parameters.
    """

    branches: list[Branch]
    others: int
    node: Node
    concat: bool
    sums: list[tuple[Node, list[Operand]]] = field(default_factory=list)
    reads: dict[int, list[Value]] = field(default_factory=dict)


def find_aggregates(dataflow: Dataflow, flow: Flow, shortcuts: Collection[str], taken: set[int]) -> list[Aggregate]:
    """All aggregates of two operators or more, in order.

    Args:
        shortcuts: modules of convolutions that project a shortcut (``roles.shortcuts``).
        taken: root nodes of residual branches, which go by themselves already.
    """
    costly = {product.node.index for product in flow.products}
    found, inner = [], set[int]()
    for node in reversed(dataflow.nodes):
        if not dataflow.live[node.index]:
            continue
        if node.op == "cat":
            every = _concat(dataflow, flow, node)
        elif _is_sum(node) and node.index not in inner:
            every = _sum(dataflow, node, inner)
        else:
            continue
        made = _side_by_side(dataflow, every, costly, taken)
        if made is not None and not _projects(dataflow, made, shortcuts):
            found.append(made)
    return found[::-1]


def _sum(dataflow: Dataflow, node: Node, inner: set[int]) -> Aggregate:
    """The whole tree of additions that ends in ``node``; those before are noted in ``inner``."""
    made = Aggregate([], 0, node, concat=False)

    def flat(before: Node, in_place: bool) -> bool:
        """Take in the operands of an addition before, unless all of them may go and what is left is written to."""
        own, others, sums = len(made.branches), made.others, len(made.sums)
        operands(before)
        if in_place and made.others == others:
            del made.branches[own:], made.sums[sums:]
            return False
        inner.add(before.index)
        return True

    def operands(at: Node) -> None:
        found: list[Operand] = []
        for position in (0, 1):
            value = at.args[position]
            before = value.producer
            only = before is not None and dataflow.post_dominator(before.index) == at.index
            alone = only and value.index not in dataflow.outputs and set(dataflow.readers[value.index]) == {at.index}
            in_place = at.op.endswith("_") and position == 0
            if before is not None and alone and _is_sum(before) and value.shape == at.outputs[0].shape:
                if flat(before, in_place):
                    found.append(before.index)
                    continue
                only = False
            branch = _branch(dataflow, at, position, value) if only else None
            if branch is None or in_place or value.shape != node.outputs[0].shape:
                made.others += value.shape == node.outputs[0].shape  # else it is a constant, or is broadcast
                found.append(None)
            else:
                found.append(branch)
                made.branches.append(branch)
        made.sums.append((at, found))

    operands(node)
    return made


def _concat(dataflow: Dataflow, flow: Flow, node: Node) -> Aggregate:
    made = Aggregate([], 0, node, concat=True)
    dim = concat_axis(node)
    branches: list[Branch | None] = []
    for position, value in enumerate(node.inputs):
        before = value.producer
        only = before is not None and dataflow.post_dominator(before.index) == node.index
        branches.append(_branch(dataflow, node, position, value) if only and node.inputs.count(value) == 1 else None)
    if any(branch is not None for branch in branches):  # else nobody asks whose labels are whose
        owners = [_atoms(flow, value.axes[dim]) if dim < len(value.axes) else None for value in node.inputs]
    for position, (value, branch) in enumerate(zip(node.inputs, branches, strict=True)):
        if branch is not None:
            elsewhere = [own for other, own in enumerate(owners) if other != position]
            elsewhere += [_atoms(flow, axis) for read in _outside(dataflow, branch) for axis in read.axes]
            if owned_column(owners[position], elsewhere) is not None:
                made.branches.append(branch)
                continue
        made.others += len(value.shape) == len(node.outputs[0].shape)
    return made


def owned_column(table: IntArray | None, elsewhere: list[IntArray | None]) -> int | None:
    """The column of a table of labels, shape (n, k), that is free throughout and shares no label with the others."""
    if table is None or not len(table):
        return None
    others = np.unique(np.concatenate([np.zeros(0, np.int64), *(t.ravel() for t in elsewhere if t is not None)]))
    for column in range(table.shape[1]):
        if (table[:, column] >= 0).all() and not np.isin(table[:, column], others).any():
            return column
    return None


def _atoms(flow: Flow, labels: IntArray | None) -> IntArray | None:
    """Free labels along an axis, shape (n, k), -1 where there is none; ``None`` for an axis that never changes."""
    if labels is None:
        return None
    table = flow.labels.factors(labels, flow.reason("labels nested too deep"))
    return np.where(flow.labels.are_free(table), table, -1)


def concat_axis(node: Node) -> int:
    """The axis of a concatenation."""
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return int(dim) % max(1, len(node.outputs[0].shape))


def _branch(dataflow: Dataflow, node: Node, position: int, value: Value) -> Branch | None:
    """The operator that makes one operand, if it exists for that alone."""
    if value.producer is None or value.index in dataflow.outputs:
        return None
    if any(n != node.index for n in dataflow.readers.get(value.index, ())):
        return None
    members = dataflow.served(value.producer.index)
    branch = Branch(node, position, value, value, value.producer.index, members)
    read = _outside(dataflow, branch)
    if not read:
        return None
    branch.stream = read[0]
    return branch


def _outside(dataflow: Dataflow, branch: Branch) -> list[Value]:
    """What an operator reads besides parameters, each once."""
    inside = set(branch.members)
    values = (value for n in branch.members for value in dataflow.nodes[n].inputs)
    found = {
        value.index: value
        for value in values
        if value.param is None and (value.producer is None or value.producer.index not in inside)
    }
    return list(found.values())


def _side_by_side(dataflow: Dataflow, made: Aggregate, costly: set[int], taken: set[int]) -> Aggregate | None:
    """The same with those operators alone that have multiply-adds and an input that another such one has."""
    made.reads = {b.root: _outside(dataflow, b) for b in made.branches}
    inputs = {root: frozenset(value.index for value in read) for root, read in made.reads.items()}
    fit = [b for b in made.branches if b.root not in taken and not costly.isdisjoint(b.members)]
    kept = [b for b in fit if sum(inputs[b.root] == inputs[other.root] for other in fit) > 1]
    if len(kept) < 2:
        return None
    made.others += len(made.branches) - len(kept)
    made.branches = kept
    made.sums = [(at, [o if not isinstance(o, Branch) or o in kept else None for o in own]) for at, own in made.sums]
    return made


def _projects(dataflow: Dataflow, made: Aggregate, shortcuts: Collection[str]) -> bool:
    """Whether this is a residual branch beside the projection of its shortcut."""
    if made.concat or len(made.branches) != 2 or made.others:
        return False
    places = [{dataflow.nodes[n].place for n in branch.members} for branch in made.branches]
    return any(place in shortcuts for own in places for place in own)


def _is_sum(node: Node | None) -> bool:
    if node is None or node.op not in _ADDS or len(node.args) < 2 or node.kwargs.get("alpha", 1) != 1:
        return False
    return all(isinstance(argument, Value) for argument in node.args[:2])


def presence(made: Aggregate, blocks: dict[int, int]) -> dict[int, tuple[Terms, Terms]]:
    """When each addition of a sum is one, and when it has a result at all, by its node.

    An addition of which one operand is gone is none, but hands on the other.

    Args:
        blocks: the operators' blocks, by the operators' roots; those without any stay.
    """
    there: dict[int, frozenset[int] | None] = {}  # by node: any of these blocks; None for always
    found = {}
    for at, operands in made.sums:
        sides = [_side(operand, there, blocks) for operand in operands]
        known = [side for side in sides if side is not None]
        there[at.index] = frozenset().union(*known) if len(known) == len(sides) else None
        found[at.index] = both([_any(side) for side in sides]), _any(there[at.index])
    return found


def _side(operand: Operand, there: dict[int, frozenset[int] | None], blocks: dict[int, int]) -> frozenset[int] | None:
    if isinstance(operand, Branch):
        return frozenset({blocks[operand.root]}) if operand.root in blocks else None
    return None if operand is None else there[operand]


def _any(blocks: frozenset[int] | None) -> Terms:
    return any_of(None if blocks is None else [frozenset({block}) for block in blocks])
