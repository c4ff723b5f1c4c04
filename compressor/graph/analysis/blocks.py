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

Operators side by side that are summed or concatenated are blocks, too, of which one stays (``parallel``); where asked
for, so are factors that a branch computes for its stream (``squeezes``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from compressor.arrays import IntArray
from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.gates import Gate, find_gate
from compressor.graph.analysis.lifetimes import Terms
from compressor.graph.analysis.module_calls import Branch
from compressor.graph.analysis.parallel import Aggregate, concat_axis, find_aggregates, owned_column, presence
from compressor.graph.analysis.reach import scope_of
from compressor.graph.analysis.removal import Joined, Removals
from compressor.graph.analysis.roles import shortcuts
from compressor.graph.analysis.squeezes import find_squeezes, squeeze_sites
from compressor.graph.analysis.streams import LAYOUT, Streams
from compressor.graph.graph import Block, Collapse, Parallel, Site
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
    addition whose result lies in it. ``branches`` are those of every block, of which the first ``n_residual`` are
    residual. ``aggregated`` gives, per storage, the addition of operators side by side whose result lies in it, when it
    is one and when there is a result at all (``parallel.presence``). ``concatenated`` has the blocks that are
    concatenated with others, and what they read.
    """

    blocks: list[Block] = field(default_factory=list)
    collapses: list[Collapse] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    gates_of: dict[int, tuple[int, ...]] = field(default_factory=dict)
    runs_with: dict[int, tuple[int, ...]] = field(default_factory=dict)
    sums: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    branches: list[list[Branch]] = field(default_factory=list)
    n_residual: int = 0
    parallels: list[Parallel] = field(default_factory=list)
    aggregated: dict[int, tuple[int, Terms, Terms]] = field(default_factory=dict)
    concatenated: dict[int, list[Value]] = field(default_factory=dict)

    def assign(self, groups: list[Group], units_of: Callable[[IntArray | None], IntArray | None]) -> None:
        """Note which groups lie wholly in which block, and which units are there with one alone.

        ``units_of`` gives the units along an axis by its labels, shape (n, k), where the largest number is none.
        """
        n_units = sum(len(group) for group in groups)
        for block in self.blocks:
            inside = set(block.parameters)
            if block.index in self.concatenated:
                reads = self.concatenated[block.index]
                owned = [_owned(branch, reads, units_of, n_units) for branch in self.branches[block.index]]
                block.outputs = tuple(sorted({unit for units in owned for unit in units}))
            outputs = set(block.outputs)
            block.groups = tuple(
                g.index
                for g in groups
                if (g.members and all(name in inside for name, _ in g.members))
                or (outputs and outputs.issuperset(g.units.tolist()))
            )


_BESIDE: tuple[Joined, ...] = ("sum", "concat")


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
    costly = {product.node.index for product in flow.products}
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

    def offers(branches: list[Branch], joined: Joined) -> list[_Offer]:
        removals = Removals(flow, dataflow, calls, parameters, modules, branches, joined=joined)
        made = []
        for alike, removal in removals.all():
            if removal is None or not fits(removals, removal):
                continue
            if joined == "factor":
                sites = squeeze_sites(alike)
                gate = None if sites is None else Gate(sites=sites)
            elif joined == "concat":
                gate = Gate()  # it acts on the units that the operator writes
            else:
                gate = find_gate(dataflow, alike, values, at_call=elsewhere(removals, removal))
            if gate is not None:
                made.append(_Offer(alike, removal, gate, removals, "squeeze" if joined == "factor" else "depth"))
        return made

    branches = _branches(dataflow, costly)
    offered = offers(branches, "stream")
    found.n_residual = len(offered)
    removals = offered[0].removals if offered else None  # of residual branches
    aggregates = find_aggregates(dataflow, flow, shortcuts(nodes), {branch.root for branch in branches})
    for joined in _BESIDE:
        of_kind = [made for made in aggregates if made.concat is (joined == "concat")]
        operators = offers([branch for made in of_kind for branch in made.branches], joined)
        offered += [offer for offer in operators if all(_leaves_another(offer, made) for made in of_kind)]
    if squeeze:
        offered += offers(find_squeezes(dataflow), "factor")
    numbers = _number(found, offered)
    of = {branch.root: index for index, own in enumerate(found.branches) for branch in own}
    for made in aggregates:
        _aggregate(found, made, of, values)
    found.parallels.sort(key=lambda each: len(each.inside))
    if removals is None:
        return found
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
                beside=removals.joined in ("sum", "concat"),
            )
        )
        for site in gate.sites:
            site.options["block"] = index
            found.sites.append(site)
        for branch in branches if removals.joined in ("stream", "factor") else ():
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


def _leaves_another(offer: _Offer, made: Aggregate) -> bool:
    """Whether something is left of an aggregate without these branches, which run the same modules."""
    roots = {branch.root for branch in offer.branches}
    return made.others > 0 or any(branch.root not in roots for branch in made.branches)


def _aggregate(found: Blocks, made: Aggregate, of: dict[int, int], values: dict[str, Value]) -> None:
    """Note of operators side by side that one stays, and what a sum of them is without some; ``of`` gives the block of
    a branch by its root."""
    blocks = {branch.root: of[branch.root] for branch in made.branches if branch.root in of}
    indices = sorted(set(blocks.values()))
    for root, index in blocks.items() if made.concat else ():
        found.concatenated.setdefault(index, []).extend(made.reads[root])
    for at, (real, there) in presence(made, blocks).items():
        y = next(node.outputs[0] for node, _ in made.sums if node.index == at)
        if y.storage not in found.sums:
            found.aggregated[y.storage] = at, real, there
    if not made.others and len(blocks) == len(made.branches):

        def size(index: int) -> int:
            return sum(math.prod(values[name].shape) for name in found.blocks[index].parameters)

        inside = tuple(i for i in found.gates_of.get(made.node.index, ()) if i not in indices)
        found.parallels.append(Parallel(tuple(sorted(indices, key=size)), inside))


def _owned(
    branch: Branch, reads: list[Value], units_of: Callable[[IntArray | None], IntArray | None], n_units: int
) -> list[int]:
    """The units that a concatenated operand alone has along the axis of the concatenation."""
    dim = concat_axis(branch.add)
    mine = units_of(branch.value.axes[dim])
    if mine is None:
        return []
    rank = len(branch.add.outputs[0].shape)
    others = [value for value in branch.add.inputs if value is not branch.value and len(value.axes) == rank]
    tables = [units_of(value.axes[dim]) for value in others]
    tables += [units_of(axis) for value in reads for axis in value.axes]
    tables = [None if table is None else table[table < n_units] for table in tables]
    column = owned_column(np.where(mine < n_units, mine, -1), tables)
    return [] if column is None else mine[:, column].tolist()
