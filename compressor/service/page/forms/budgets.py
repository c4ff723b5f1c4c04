"""Budgets in the form: an amount, or several with commas, and a unit that is chosen beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compressor.budget import parse_budget
from compressor.errors import UsageError
from compressor.report import wording

UNITS: dict[str, tuple[tuple[str, str], ...]] = {
    "flops": (("%", "% of the original"), ("M", "million multiply-adds"), ("G", "billion multiply-adds")),
    "params": (("%", "% of the original"), ("k", "thousand"), ("M", "million")),
    "memory": (("%", "% of the original"), ("kB", "kB"), ("MB", "MB"), ("MiB", "MiB")),
    "latency": (("%", "% of the original"), ("ms", "ms"), ("us", "µs")),
    "complexity": (("%", "% of the original"), ("M", "million operations"), ("G", "billion operations")),
}
_OTHER = (("%", "% of the original"), ("k", "thousand"), ("M", "million"), ("", "as typed"))
_AMOUNT = re.compile(r"(?P<number>[^a-zA-Zµμ%]*)(?P<unit>[a-zA-Zµμ%]*)")


def units_of(cost: str) -> tuple[tuple[str, str], ...]:
    """Units that can be chosen for a cost: what is written, and how it is said."""
    return UNITS.get(cost, _OTHER)


def budgets_of(cost: str, amounts: str, unit: str) -> str | list[str] | None:
    """What a recipe says of a cost: one budget, several for a sweep, or nothing.

    Args:
        amounts: as typed: ``50``, ``25, 50, 75``, or with units of their own, ``2G``.
        unit: for those without one.

    Raises:
        UsageError: an amount that is none.
    """
    parts = [part.strip() for part in re.split(r"[,;]", amounts) if part.strip()]
    texts = []
    for part in parts:
        text = part if _has_unit(part) else f"{part}{unit}"
        texts.append(parse_budget(cost, text).text)
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise UsageError(f"The {wording.cost_name(cost).lower()} budget {twice} is there twice; name each once.")
    return None if not texts else texts[0] if len(texts) == 1 else texts


def _has_unit(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return True
    return False


def typed(cost: str, said: str | float | Sequence[str | float]) -> tuple[str, str]:
    """A recipe's budget as the form shows it: the amounts, and the unit that all of them have in common."""
    texts = [str(each) for each in (said if isinstance(said, (list, tuple)) else [said])]
    split = [match for text in texts if (match := _AMOUNT.fullmatch(text.strip()))]
    units = {match["unit"].lower(): match["unit"] for match in split}
    offered = {unit.lower(): unit for unit, _ in units_of(cost)}
    if len(split) == len(texts) and len(units) == 1 and (unit := offered.get(next(iter(units)))) is not None:
        return ", ".join(match["number"].strip() for match in split), unit
    return ", ".join(texts), units_of(cost)[0][0]
