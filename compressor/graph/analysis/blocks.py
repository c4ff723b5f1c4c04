"""Residual blocks: ``y = f(x) + branch(x)`` where the branch can be taken out without changing a shape.

``f`` is nothing in most networks, and may be anything that costs next to nothing: an activation, a factor, a norm or a
pool (``streams``). At an addition of two operands, the branch is what exists for one of them alone
(``Dataflow.served``). It is a block if

- the other operand has the sum's shape, and the branch reads what that comes from: the *stream*, before or after the
  additions of other blocks (so attention and MLP in parallel are two blocks);
- there is a way to take it out of the module tree (``removal``);
- there is a way to multiply its output by a gate (``gates``).

Whatever else a branch reads (tables, another network's result) may be computed anywhere. Branches that run the same
modules, because a block is used several times, are one block with one gate. Branches are sub-trees of the
post-dominator tree, so two of them are either disjoint or nested.

Where asked for, factors that a branch computes for its stream are blocks, too (``squeezes``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.gates import Gate, find_gate
from compressor.graph.analysis.module_calls import Branch
from compressor.graph.analysis.reach import scope_of
from compressor.graph.analysis.removal import Removals
from compressor.graph.analysis.squeezes import find_squeezes, squeeze_sites
from compressor.graph.analysis.streams import LAYOUT, Streams
from compressor.graph.graph import Block, Collapse, Site
from compressor.graph.groups import Group
from compressor.graph.labels.flow import Flow
from compressor.graph.patterns import matches
from compressor.graph.recording.values import ModuleCall, Node, Value

_SUMS = {"add", "add_", "sub", "sub_"}


@dataclass
class Blocks:
    """What ``find_blocks`` found.

    ``gates_of`` gives, per node, the blocks it goes with, outermost first; ``runs_with`` likewise, and that a product
    with a factor goes with the factor. ``sums`` gives, per storage, the block and the stream's storage of every block
    addition whose result lies in it. ``branches`` are those of every block; residual ones come first.
    """

    blocks: list[Block] = field(default_factory=list)
    collapses: list[Collapse] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    gates_of: dict[int, tuple[int, ...]] = field(default_factory=dict)
    runs_with: dict[int, tuple[int, ...]] = field(default_factory=dict)
    sums: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    branches: list[list[Branch]] = field(default_factory=list)

    def assign(self, groups: list[Group]) -> None:
        """Note which groups lie wholly in which block."""
        for block in self.blocks:
            inside = set(block.parameters)
            block.groups = tuple(g.index for g in groups if g.members and all(name in inside for name, _ in g.members))


@dataclass
class _Offer:
    """Branches that go together, how they are taken out, and where their gate acts."""

    branches: list[Branch]
    removal: dict[str, str]
    gate: Gate
    removals: Removals
    component: str = "depth"


def find_blocks(
    flow: Flow,
    nodes: list[Node],
    outputs: list[Value],
    calls: list[ModuleCall],
    parameters: dict[str, tuple[Value, tuple[str, ...], bool]],
    modules: dict[str, nn.Module],
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    unsure: Collection[str] = (),
    squeeze: bool = False,
) -> Blocks:
    """Find all blocks of one recording.

    Args:
        parameters: first names to (value, all names, whether a buffer).
        modules: the model's modules by every name.
        unsure: modules right inside which nothing is taken out: for other inputs, something else may read it.
        squeeze: whether factors of a stream are blocks, too.
    """
    found = Blocks()
    dataflow = Dataflow(nodes, outputs)
    values = {name: value for name, (value, _, _) in parameters.items()}
    reached = {value.index for node in nodes for value in node.inputs}

    def fits(removals: Removals, removal: dict[str, str]) -> bool:
        if not _chosen(removals.weights(removal), include, exclude):
            return False
        return not (unsure and any(scope_of(calls, place.rpartition(".")[0]) in unsure for place in removal))

    def elsewhere(removals: Removals, removal: dict[str, str]) -> bool:
        """Whether parameters go that this pass did not reach."""
        own = removals.parameters(removal)
        return any(values[name].index not in reached for name in own if not parameters[name][2])

    offered: list[_Offer] = []
    branches = _branches(dataflow, {product.node.index for product in flow.products})
    removals = Removals(flow, dataflow, calls, parameters, modules, branches)
    for alike, removal in removals.all():
        if removal is not None and fits(removals, removal):
            gate = find_gate(dataflow, alike, values, at_call=elsewhere(removals, removal))
            if gate is not None:
                offered.append(_Offer(alike, removal, gate, removals))
    factors = find_squeezes(dataflow) if squeeze else []
    others = Removals(flow, dataflow, calls, parameters, modules, factors, factors=True)
    for alike, removal in others.all():
        if removal is not None and fits(others, removal):
            sites = squeeze_sites(alike)
            if sites is not None:
                offered.append(_Offer(alike, removal, Gate(sites=sites), others, "squeeze"))
    numbers = _number(found, offered)
    for module, kind, members in removals.joint():
        indices = {numbers.get(branch.add.index) for branch in members}
        held = {name for i in indices if i is not None for name in found.blocks[i].parameters}
        if None not in indices and held.issuperset(removals.parameters({module: kind})):
            blocks = tuple(sorted(index for index in indices if index is not None))
            found.collapses += [Collapse(name, kind, blocks) for name in removals.names(module)]
    return found


def _branches(dataflow: Dataflow, costly: set[int]) -> list[Branch]:
    """All additions of which one operand is a branch beside the other, in order."""
    streams = Streams(dataflow.nodes, costly)
    found = []
    for node in dataflow.nodes:
        if not dataflow.live[node.index]:
            continue
        if node.op in LAYOUT and len(node.inputs) == 1:
            streams.laid_out(node)
        elif node.op in _SUMS and len(node.args) > 1 and all(isinstance(a, Value) for a in node.args[:2]):
            later = 0 if _born(node.args[0]) > _born(node.args[1]) else 1
            branch = next((b for p in (later, 1 - later) if (b := _branch(dataflow, node, p, streams, costly))), None)
            if branch is not None:
                found.append(branch)
                streams.passes(node, branch.stream, plain=branch.plain)
    return found


def _branch(dataflow: Dataflow, node: Node, position: int, streams: Streams, costly: set[int]) -> Branch | None:
    u, v = node.args[position], node.args[1 - position]
    if u.producer is None or dataflow.post_dominator(u.producer.index) != node.index:
        return None
    if v.shape != node.outputs[0].shape or v.param is not None:
        return None
    members = dataflow.served(u.producer.index)
    inside = set(members)
    outside = [
        value
        for n in members
        for value in dataflow.nodes[n].inputs
        if value.producer is None or value.producer.index not in inside
    ]
    plain = position == 1 or (node.op.startswith("add") and node.kwargs.get("alpha", 1) == 1)
    root = streams.plain(v)
    direct = plain and any(streams.plain(value) is root for value in outside)
    if not direct:
        if inside.isdisjoint(costly) or (_born(u) < _born(v) and not dataflow.only_reader(u, node, inside)):
            return None
        sources = streams.sources(v) | streams.sources(root)
        if not any(value.param is None and sources & streams.sources(value) for value in outside):
            return None
    elif _born(u) < _born(v) and not dataflow.only_reader(u, node, inside):
        return None
    return Branch(node, position, u, v, u.producer.index, members, plain)


def _born(value: Value) -> int:
    return -1 if value.producer is None else value.producer.index


def _chosen(places: set[str], include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether the user's patterns allow removing all these modules."""
    if any(matches(place, exclude) for place in places):
        return False
    return not include or all(matches(place, include) for place in places)


def _number(found: Blocks, offered: list[_Offer]) -> dict[int, int]:
    """Write the blocks down; returns, per node of an addition, the index of its block."""
    names: dict[str, int] = {}
    around: dict[int, list[int]] = {}
    numbers: dict[int, int] = {}
    for index, offer in enumerate(offered):
        branches, removal, gate, removals = offer.branches, offer.removal, offer.gate, offer.removals
        found.branches.append(branches)
        name = removals.name(removal)
        names[name] = names.get(name, 0) + 1
        nodes = removals.nodes(branches, removal)
        for n in nodes:
            around.setdefault(n, []).append(index)
        found.blocks.append(
            Block(
                index,
                name if names[name] == 1 else f"{name}#{names[name]}",
                branches[0].add.index,
                tuple(nodes),
                tuple(name for name in removal if name in removals.modules),
                tuple(removals.parameters(removal)),
                removal,
                gate.parameters,
                component=offer.component,
                tail=removals.tail(branches, removal),
            )
        )
        for site in gate.sites:
            site.options["block"] = index
            found.sites.append(site)
        for branch in branches:
            numbers[branch.add.index] = index
            y = branch.add.outputs[0]
            if y.storage != branch.stream.storage:
                found.sums.setdefault(y.storage, []).append((branch.add.index, index, branch.stream.storage))
    sizes = [len(block.nodes) for block in found.blocks]
    for n, indices in around.items():
        found.gates_of[n] = tuple(sorted(indices, key=lambda i: -sizes[i]))
    found.runs_with = dict(found.gates_of)
    for block, branches in zip(found.blocks, found.branches, strict=True):
        shared = set.intersection(*(set(found.gates_of.get(branch.add.index, ())) for branch in branches))
        block.inside = tuple(i for i in found.gates_of.get(block.add, ()) if i in shared and i != block.index)
        if block.component == "squeeze":
            for branch in branches:
                before = found.runs_with.get(branch.add.index, ())
                found.runs_with[branch.add.index] = (*before, block.index)
    return numbers
