"""Trim so that nothing but what was decided is lost: what is not exact stays whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.arrays import BoolArray, UnitMask
from compressor.graph.graph import Graph
from compressor.nn.modules import unwrapped
from compressor.trim.apply import trim
from compressor.trim.check import TOLERANCE, Check, TrimResult
from compressor.trim.culprits import Change, Kept, guilty
from compressor.trim.plan import plan
from compressor.trim.recount import disagreement
from compressor.trim.verify import Verifier


def trim_verified(
    model: nn.Module,
    graph: Graph,
    units: UnitMask,
    example_inputs: Any,
    example_kwargs: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    gates: BoolArray | None = None,
) -> TrimResult:
    """Trim and verify. Groups and blocks whose removal is not exact are found by bisection, restored, and ``refused``;
    so are all if no output depends on any of them, whatever is drawn.

    The result may then lie above a budget; the caller decides again with these left whole.

    Args:
        units: which units are kept, shape (n_units,) or with the constant last entry.
        gates: which blocks are kept, shape (n_blocks,); default all.

    Raises:
        UnsupportedModelError: the original raises on the inputs, or has weights that are not finite.
        UsageError: inputs that are no numbers.
    """
    model = unwrapped(model)
    verifier = Verifier(model, graph, example_inputs, example_kwargs, seed=seed)
    wanted = Kept(np.append(np.asarray(units[: graph.n_units], dtype=np.bool_), True), graph.gates(gates))

    def attempt(choice: Kept, *, thorough: bool = True) -> tuple[nn.Module | None, Architecture, Check]:
        architecture = plan(model, graph, choice.units, choice.gates)
        try:
            trimmed = trim(model, architecture)
        except (RuntimeError, IndexError, ValueError, KeyError, AttributeError) as error:
            return None, architecture, Check(float("inf"), TOLERANCE, f"{type(error).__name__}: {error}")
        check = verifier.check(choice.units, trimmed, architecture, choice.gates, thorough=thorough)
        if thorough and check.passed:
            wrong = disagreement(model, trimmed, graph, choice.units, choice.gates, verifier.inputs)
            check = replace(check, error=float("inf"), reason=wrong) if wrong else check
        return trimmed, architecture, check

    trimmed, architecture, check = attempt(wanted)
    refused: list[Change] = []
    reason = check.reason or f"they differ by {check.error:.1e}"
    if not check.passed:
        changed = wanted.changes(graph)
        quick = not attempt(wanted, thorough=False)[2].passed
        refused = guilty(changed, lambda some: attempt(wanted.only(graph, some), thorough=not quick)[2].passed)
        trimmed, architecture, check = attempt(wanted.without(graph, refused))
        if not check.passed:  # none is at fault alone, only several together
            refused = changed
            trimmed, architecture, check = attempt(wanted.without(graph, refused))
    for _ in range(2):  # what was left to be removed may be unseen in its turn
        if not check.passed or len(check.unseen) < max(1, len(graph.groups)):
            break  # a few that matter to nothing are named, and may go
        if not refused:
            reason = "no input was found on which the output depends on their channels"
        refused += [("group", g.index) for g in graph.groups if g.name in check.unseen]
        trimmed, architecture, check = attempt(wanted.without(graph, refused))
    if trimmed is None:
        trimmed = trim(model, architecture)
    names = [graph.groups[i].name if kind == "group" else graph.blocks[i].name for kind, i in refused]
    return TrimResult(trimmed, architecture, check, names, reason)
