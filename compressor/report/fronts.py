"""What is shown of many networks for many budgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Mark:
    """A network that was tried: its costs and how good it is."""

    name: str
    costs: dict[str, float]
    score: float | None


@dataclass(frozen=True)
class FrontPage:
    """A front and what it came of.

    Attributes:
        model: what the user named; ``data`` the data, if there was any; ``methods`` the searches.
        metric: what scores are; ``before`` is the original's.
        original: its costs, in the ``units`` by cost.
        costs: those that budgets were about; ``limits`` has the budgets by cost, in the cost's unit.
        points: rows with ``name``, ``costs``, ``score``, ``dominated_by``, ``method``, ``budgets``, ``start``, ...
        tried: every network that a search scored, on held-out samples.
        settings: by network what was chosen, by dimension.
        history: entries with ``policies``, see ``page.space``.
        missing: points that are not done; ``failed`` why some are not, by name.
    """

    model: str
    data: str | None
    methods: list[str]
    metric: str
    lower_is_better: bool
    before: float | None
    original: dict[str, float]
    units: dict[str, str]
    costs: list[str]
    limits: dict[str, list[float]]
    points: list[dict[str, Any]]
    tried: list[Mark] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
