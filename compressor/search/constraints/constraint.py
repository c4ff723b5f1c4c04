"""A budget as a search meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from compressor.arrays import BoolArray, UnitMask
from compressor.costs import CostTerm, Sizes
from compressor.errors import UnreachableBudgetError
from compressor.graph.graph import Graph
from compressor.search.constraints.wanted import Wanted


@dataclass(frozen=True)
class Constraint:
    """A cost that must not exceed ``limit`` (in the term's unit)."""

    term: CostTerm
    limit: float

    @property
    def name(self) -> str:
        return self.term.name


RoundTo = int | Mapping[str, int] | None


def hard_sizes(graph: Graph, units: UnitMask, gates: BoolArray | None = None) -> Sizes:
    """Sizes of a hard choice."""
    weights = None if gates is None else torch.from_numpy(gates.astype("float64"))
    return Sizes(graph, torch.from_numpy(units[: graph.n_units].astype("float64")), weights)


def unreachable(
    term: CostTerm,
    limit: float,
    smallest: float,
    wanted: Wanted | None = None,
    *,
    others: bool = False,
    narrows: bool = True,
    taking: str = "",
) -> UnreachableBudgetError:
    """The error that names the smallest cost the model can be brought to, with what is ``wanted`` kept.

    ``others`` says that the budget could be reached without the other ones; ``narrows``, that the search removes
    channels; ``taking`` what is chosen then.
    """
    kept = f" with {wanted.describe()}" if wanted else ""
    kept += " under the other budgets" if others else ""
    less = " ask to keep less," if wanted else ""
    cure = (
        "free layers that patterns or operators hold fixed ('compress inspect' lists them)."
        if narrows
        else "let a search follow that removes channels, which this one does not: --search NAME,figs."
    )
    share = 100 * smallest / term.original if term.original else 0.0
    return UnreachableBudgetError(
        f"The {term.name} budget of {readable(limit, term.unit)} cannot be reached: the smallest this model can be "
        f"brought to{kept} is {readable(smallest, term.unit)} ({share:.1f} % of the original{taking}). Raise the "
        f"budget,{less} "
        f"or {cure}"
    )


def readable(value: float, unit: str) -> str:
    """A number with a prefix and its unit: ``1.83 GMACs``."""
    names = {"macs": "MACs", "params": "parameters", "bytes": "B", "ms": "ms"}
    if unit == "ms":
        return f"{value:.3g} ms"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{names.get(unit, unit)}"
    return f"{value:.4g} {names.get(unit, unit)}"
