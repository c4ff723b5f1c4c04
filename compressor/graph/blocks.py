"""Residual blocks: ``y = x + branch(x)`` where the branch can be taken out without changing a shape.

At an addition ``u + v`` with ``v`` of the sum's shape, the branch is what exists for ``u`` alone
(``Dataflow.served``). It is a block if

- it reads ``v``, or another value of the same *stream*: what ``v`` was before additions of other blocks or a change of
  layout (so attention and MLP in parallel are two blocks);
- nothing else it reads is computed after ``v``, so that it depends on ``v`` in no other way;
- there is a way to take it out of the module tree (``removal``);
- there is a way to multiply its output by a gate (``gates``).

Branches are sub-trees of the post-dominator tree, so two of them are either disjoint or nested.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from compressor.graph.dataflow import Dataflow
from compressor.graph.flow import Flow
from compressor.graph.gates import Gate, find_gate
from compressor.graph.graph import Block, Collapse, Group, Site
from compressor.graph.record import ModuleCall, Node, Value
from compressor.graph.removal import Branch, Removals
from compressor.patterns import matches

_LAYOUT = {"view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze",
           "contiguous", "clone", "alias", "detach", "_to_copy"}  # fmt: skip


@dataclass
class Blocks:
    """What ``find_blocks`` found.

    ``gates_of`` gives, per node, the blocks it goes with, outermost first. ``sums`` gives, per storage, the block and
    the stream's storage of every block addition whose result lies in it.
    """

    blocks: list[Block] = field(default_factory=list)
    collapses: list[Collapse] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    gates_of: dict[int, tuple[int, ...]] = field(default_factory=dict)
    sums: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=list)

    def assign(self, groups: list[Group]) -> None:
        """Note which groups lie wholly in which block."""
        for block in self.blocks:
            inside = set(block.parameters)
            block.groups = tuple(g.index for g in groups if g.members and all(name in inside for name, _ in g.members))


def find_blocks(
    flow: Flow,
    nodes: list[Node],
    outputs: list[Value],
    calls: list[ModuleCall],
    parameters: dict[str, tuple[Value, tuple[str, ...], bool]],
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Blocks:
    """Find all blocks of one recording. ``parameters`` maps first names to (value, all names, whether a buffer)."""
    found = Blocks()
    dataflow = Dataflow(nodes, outputs)
    branches = _branches(dataflow)
    if not branches:
        return found
    removals = Removals(flow, dataflow, calls, parameters, branches)
    values = {name: value for name, (value, _, _) in parameters.items()}
    offered: list[tuple[Branch, dict[str, str], Gate]] = []
    for branch in branches:
        removal = removals.of(branch)
        if removal is None or not _chosen(removals.weights(removal), include, exclude):
            continue
        gate = find_gate(dataflow, branch, values)
        if gate is not None:
            offered.append((branch, removal, gate))
    _number(found, offered, removals, dataflow)
    found.collapses = [
        Collapse(module, kind, tuple(sorted(index for index in numbers if index is not None)))
        for module, kind, members in removals.joint()
        if None not in (numbers := [_index_of(found, branch.add) for branch in members])
    ]
    return found


def _branches(dataflow: Dataflow) -> list[Branch]:
    """All additions whose branch depends on the other operand through nothing else, in order."""
    stream: dict[int, Value] = {}
    found = []
    for node in dataflow.nodes:
        if not dataflow.live[node.index]:
            continue
        if node.op in _LAYOUT and len(node.inputs) == 1:
            source = node.inputs[0]
            for output in node.outputs:
                stream[output.index] = stream.get(source.index, source)
        elif node.op in ("add", "add_") and len(node.args) > 1 and all(isinstance(a, Value) for a in node.args[:2]):
            branch = _branch(dataflow, node, stream)
            if branch is not None:
                found.append(branch)
                for output in node.outputs:
                    stream[output.index] = stream.get(branch.stream.index, branch.stream)
    return found


def _branch(dataflow: Dataflow, node: Node, stream: dict[int, Value]) -> Branch | None:
    first, second = node.args[:2]
    position = 0 if _born(first) > _born(second) else 1
    u, v = (first, second) if position == 0 else (second, first)
    if u.producer is None or dataflow.post_dominator(u.producer.index) != node.index:
        return None
    if v.shape != node.outputs[0].shape or v.param is not None:
        return None
    if position == 0 and node.kwargs.get("alpha", 1) != 1:  # x * alpha would be left
        return None
    root = stream.get(v.index, v)
    members = dataflow.served(u.producer.index)
    inside = set(members)
    reads_stream = False
    for n in members:
        for value in dataflow.nodes[n].inputs:
            if value.producer is not None and value.producer.index in inside:
                continue
            if stream.get(value.index, value) is root:
                reads_stream = True
            elif _born(value) > _born(v):
                return None
        if any(writer not in inside and writer > _born(v) for writer in dataflow.memory[n]):
            return None
    if not reads_stream:
        return None
    return Branch(node, position, u, v, u.producer.index, members)


def _born(value: Value) -> int:
    return -1 if value.producer is None else value.producer.index


def _chosen(places: set[str], include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether the user's patterns allow removing all these modules."""
    if any(matches(place, exclude) for place in places):
        return False
    return not include or all(matches(place, include) for place in places)


def _number(
    found: Blocks,
    offered: list[tuple[Branch, dict[str, str], Gate]],
    removals: Removals,
    dataflow: Dataflow,
) -> None:
    names: dict[str, int] = {}
    around: dict[int, list[int]] = {}
    for index, (branch, removal, gate) in enumerate(offered):
        found.branches.append(branch)
        name = removals.name(removal)
        names[name] = names.get(name, 0) + 1
        nodes = removals.nodes(branch, removal)
        for n in nodes:
            around.setdefault(n, []).append(index)
        found.blocks.append(
            Block(
                index,
                name if names[name] == 1 else f"{name}#{names[name]}",
                branch.add.index,
                tuple(nodes),
                tuple(name for name in removal if name in removals.modules),
                tuple(removals.parameters(removal)),
                removal,
                gate.parameters,
            )
        )
        if gate.site is not None:
            gate.site.options["block"] = index
            found.sites.append(gate.site)
        y = branch.add.outputs[0]
        if y.storage != branch.stream.storage:
            found.sums.setdefault(y.storage, []).append((branch.add.index, index, branch.stream.storage))
    sizes = [len(block.nodes) for block in found.blocks]
    for n, indices in around.items():
        found.gates_of[n] = tuple(sorted(indices, key=lambda i: -sizes[i]))
    for block in found.blocks:
        block.inside = tuple(i for i in found.gates_of.get(block.add, ()) if i != block.index)


def _index_of(found: Blocks, add: Node) -> int | None:
    return next((block.index for block in found.blocks if block.add == add.index), None)
