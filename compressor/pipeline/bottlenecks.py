"""Groups that a decision leaves with a single channel: said, with what to do about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressor.graph.gated import kept_units
from compressor.graph.graph import Graph
from compressor.graph.groups import Group
from compressor.pipeline.problem import Problem
from compressor.search.result import SearchResult

_LEAST = 4  # channels of a group of which it is worth saying
_NAMED = 4


def bottlenecks(graph: Graph, decision: SearchResult) -> list[Group]:
    """Groups of four channels or more of which one is kept, in blocks that stay.

    Of attention, heads and their dimensions are groups apart: they count where one number of one head is left.
    """
    gates = graph.gates(decision.gates)
    mask = np.append(kept_units(graph, decision.units, gates)[: graph.n_units].astype(np.bool_), True)
    gone = {group for block in graph.blocks if not gates[block.index] for group in block.groups}

    def left(group: Group) -> int:
        """Indices left along the shortest axis that the group is a part of."""
        axes = [graph.parameters[name].axes[d] for name, d in group.members]
        return min((int(axis.keep(mask).sum()) for axis in axes if axis is not None), default=0)

    return [
        group
        for group in graph.groups
        if group.component == "width" and len(group) >= _LEAST and group.index not in gone
        if int(mask[group.units].sum()) == 1 and left(group) == 1
    ]


def warn_of_bottlenecks(problem: Problem, decision: SearchResult) -> None:
    """Warn of groups that keep one channel, unless that was asked for (``choose``)."""
    found = [group for group in bottlenecks(problem.graph, decision) if group.index not in problem.wanted.chosen]
    if not found:
        return
    names = [group.name for group in found]
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    groups = "1 group keeps" if len(found) == 1 else f"{len(found)} groups keep"
    problem.warn(
        f"{groups} a single channel: {listed}. Hardly anything passes through one channel, so such networks seldom "
        f"learn. {_cure(problem, found)}"
    )


def _cure(problem: Problem, found: list[Group]) -> str:
    """What may be done: hold the groups at two channels, if the budgets have room for that."""
    least = {
        **problem.wanted.least,
        **{group.index: max(2, problem.wanted.least.get(group.index, 0)) for group in found},
    }
    wider = problem.projector(wanted=replace(problem.wanted, least=least))
    smallest = wider.minimal(np.zeros(problem.graph.n_units))
    if not wider.fits(smallest, wider.fewest(smallest)):
        return "The budgets have no room for two channels in each: raise them."
    layer = found[0].name.partition("#")[0]
    return f"Raise the budgets, or hold layers at more channels (--keep '{layer}=2', in Python keep={{'{layer}': 2}})."
