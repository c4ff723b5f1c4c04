"""Budgets as the user writes them: ``2G``, ``50%``, ``12ms``."""

from __future__ import annotations

import contextlib
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context

from compressor.errors import UsageError
from compressor.options import shown
from compressor.plugins.registry import Registry

#: What budgets can be about; a ``compressor.costs.CostTerm`` each. Other packages add theirs to the group.
COSTS = Registry(
    "cost",
    {
        "flops": "compressor.costs.flops:Flops",
        "params": "compressor.costs.params:Params",
        "memory": "compressor.costs.memory:Memory",
        "complexity": "compressor.costs.complexity:Complexity",
        "latency": "compressor.latency.term:Latency",
    },
    group="compressor.costs",
)

_DECIMAL = {"": "1", "k": "1e3", "m": "1e6", "g": "1e9", "b": "1e9", "t": "1e12"}
_BYTES = {
    **{"": "1", "b": "1", "k": "1e3", "kb": "1e3", "m": "1e6", "mb": "1e6", "g": "1e9", "gb": "1e9"},
    **{"kib": "1024", "mib": str(2**20), "gib": str(2**30)},
}
_MILLISECONDS = {"": "1", "us": "1e-3", "µs": "1e-3", "μs": "1e-3", "ms": "1", "s": "1e3"}
#: Decimal, so that 2.3G is exactly 2300M and 0.1s exactly 100ms; what is too large or too small becomes inf or 0.
_EXACT = Context(prec=200, traps=[])

_UNITS: dict[str, dict[str, str]] = {
    "flops": _DECIMAL,
    "params": _DECIMAL,
    "memory": _BYTES,
    "latency": _MILLISECONDS,
    "complexity": _DECIMAL,
}
_EXAMPLES = {
    "flops": "2G, 500M, 1.5e9 multiply-adds, or 50%",
    "params": "5M, 250k, 1e6, or 50%",
    "memory": "12MB, 12MiB, 800kB, or 50%",
    "latency": "3ms, 800us, 0.1s, or 50%",
    "complexity": "2G, 500M, 1.5e9 operations, or 50%",
}
_OTHER = "1e6, 500k, or 50%"  # of a cost that another package added
BASE_UNITS = {"flops": "macs", "params": "params", "memory": "bytes", "latency": "ms", "complexity": "operations"}
"""The unit of ``Budget.limit`` for each cost."""

_TEXT = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(?P<unit>%|[a-zµμ]*)", re.IGNORECASE)

#: The units that ``Budget.normal`` is written in, largest first.
_NORMAL = {
    "memory": {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0},
    "latency": {"ms": 1.0},
}
_NORMAL_DECIMAL = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0}

_LONGEST = 100  # characters of an amount
OF_LIMIT = "_of_limit"
"""Ends the names of costs that are told as fractions of their budgets' limits: ``flops_of_limit``."""


@dataclass(frozen=True)
class Budget:
    """An upper limit on one cost. Two are equal if they are the same limit, however they were written.

    Attributes:
        cost: ``"flops"``, ``"params"``, ``"memory"``, ``"latency"`` or ``"complexity"``.
        value: a fraction of the original cost if ``relative``, else an amount in the cost's base unit
            (multiply-adds, parameters, bytes, milliseconds).
        relative: whether ``value`` is a fraction of the original.
        text: the budget as the user wrote it.
    """

    cost: str
    value: float
    relative: bool
    text: str = field(compare=False)

    @property
    def normal(self) -> str:
        """The one text for all ways to write this amount, for names and comparisons.

        >>> [parse_budget("flops", text).normal for text in ("2000M", "2e9", "5e1%")]
        ['2G', '2G', '50%']
        """
        if self.relative:
            return f"{self.value * 100:.15g}%"
        units = _NORMAL.get(self.cost, _NORMAL_DECIMAL)
        unit, scale = next(((u, s) for u, s in units.items() if self.value >= s), list(units.items())[-1])
        return f"{self.value / scale:.15g}{unit}"

    def limit(self, original: float) -> float:
        """The absolute limit, in the base unit, for a model whose cost is ``original``."""
        return self.value * original if self.relative else self.value

    def __str__(self) -> str:
        return f"{self.cost} {self.text}"


def parse_budget(cost: str, given: str | float) -> Budget:
    """Read one budget.

    Args:
        cost: which cost the budget limits.
        given: text such as ``"2G"``, ``"50%"``, ``"12MiB"``, ``"3ms"``, or a number in the base unit. Only a percent
            sign makes a budget relative: the number 0.5 is half a multiply-add, which is refused.

    Raises:
        UsageError: an unknown cost, text that is no amount, or an amount that is not positive and finite.

    >>> parse_budget("flops", "50%").limit(8e9)
    4000000000.0
    >>> parse_budget("memory", "12MiB").value
    12582912.0
    """
    if cost not in COSTS:
        raise UsageError(f"Unknown cost {shown(cost)} in a budget. Choose from: {', '.join(COSTS)}.")
    examples = _EXAMPLES.get(cost, _OTHER)
    if isinstance(given, bool) or not isinstance(given, (str, numbers.Real)):
        raise UsageError(f"A {cost} budget must be text or a number, not {shown(given)}; for example {examples}.")
    text = given.strip() if isinstance(given, str) else _written(given)
    value, relative = _read_amount(cost, text)
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"The {cost} budget {text!r} must be above zero and finite; for example {examples}.")
    if not relative and cost != "latency" and value < 1:
        share = f"; for a share of the original write '{value:.3%}'" if not isinstance(given, str) else ""
        raise UsageError(f"The {cost} budget {text!r} is less than one{share}; for example {examples}.")
    return Budget(cost, value, relative, text)


def _units(cost: str) -> dict[str, str]:
    return _UNITS.get(cost, _DECIMAL)


def _written(number: numbers.Real) -> str:
    try:
        return f"{float(number):.15g}"
    except OverflowError:
        return "inf"


def _read_amount(cost: str, text: str) -> tuple[float, bool]:
    """Split text into its value in base units (or its fraction) and whether it is relative."""
    examples = _EXAMPLES.get(cost, _OTHER)
    if text.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        return float(text), False
    match = _TEXT.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        found = shown(text) if text else "an empty text"
        raise UsageError(f"Cannot read {found} as a {cost} budget; expected for example {examples}.")
    number, unit = _EXACT.create_decimal(match["number"]), match["unit"]
    if unit == "%":
        return float(_EXACT.divide(number, 100)), True
    scale = _units(cost).get(unit.lower())
    if scale is None:
        known = ", ".join(sorted((u for u in _units(cost) if u), key=len)) + ", %"
        raise UsageError(
            f"Cannot read {shown(text)} as a {cost} budget: unknown unit {unit!r} (known: {known}); "
            f"expected for example {examples}."
        )
    return float(_EXACT.multiply(number, _EXACT.create_decimal(scale))), False


def parse_budgets(budgets: Mapping[str, str | float]) -> tuple[Budget, ...]:
    """Read a mapping such as ``{"flops": "50%", "params": "5M"}``. Raises ``UsageError`` if it is none, or empty."""
    if not isinstance(budgets, Mapping):
        raise UsageError(f"budgets must be a mapping such as {{'flops': '50%'}}, not {shown(budgets)}.")
    if not budgets:
        raise UsageError("No budget was given; pass at least one, for example --budget-flops 50%.")
    return tuple(parse_budget(cost, given) for cost, given in budgets.items())


def normal_texts(budgets: Mapping[str, str]) -> dict[str, str]:
    """The same budgets, each as ``Budget.normal``; one that cannot be read stays as it is."""
    found = dict(budgets)
    for cost, text in budgets.items():
        with contextlib.suppress(UsageError):
            found[cost] = parse_budget(cost, text).normal
    return found


def normal_list(text: str) -> str:
    """Budgets in one text, such as ``flops=25.0%,params=1M``, each as ``Budget.normal``; see ``normal_texts``."""
    pairs = [(cost.strip(), amount.strip()) for cost, _, amount in (part.partition("=") for part in text.split(","))]
    return ",".join(f"{cost}={normal_texts({cost: amount})[cost]}" for cost, amount in pairs)
