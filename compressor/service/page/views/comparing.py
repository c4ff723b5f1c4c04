"""What several jobs are compared by: figures of their reports, and what differs between their recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compressor.report import Report, wording
from compressor.report.page.markup import Markup
from compressor.service.page.forms.fields import written
from compressor.service.page.pictures.marks import Mark
from compressor.service.page.pictures.scatter import Dot, Scatter
from compressor.service.records import JobRecord

LATENCY = "latency"


@dataclass(frozen=True)
class Figure:
    """A cost of a network before and after, in ``unit``."""

    before: float
    after: float
    unit: str

    @property
    def share(self) -> float | None:
        """What is left of the original."""
        return wording.of_original(self.after, self.before)


@dataclass(frozen=True)
class Compared:
    """A job among others.

    Attributes:
        costs: by name, latency among them where networks were timed; ``targets`` says where.
        score: of the small network, and ``before`` of the original, on the scale ``metric``.
    """

    job: JobRecord
    mark: Mark
    costs: Mapping[str, Figure] = field(default_factory=dict)
    targets: str = ""
    score: float | None = None
    before: float | None = None
    score_text: str = ""
    before_text: str = ""
    metric: str = ""
    size: str = ""
    missing: str = ""


def compared(job: JobRecord, report: Report | None, mark: Mark, missing: str = "") -> Compared:
    """A job by its report; with none, what is known without."""
    if report is None:
        return Compared(job, mark, missing=missing or f"No report: the job is {job.state}.")
    costs = {cost.name: Figure(cost.original, cost.reached, cost.unit) for cost in report.costs}
    costs |= {budget.cost: Figure(budget.original, budget.reached, budget.unit) for budget in report.budgets}
    if report.latency is not None:
        timed = report.latency
        costs[LATENCY] = Figure(float(timed.original["median_ms"]), float(timed.compressed["median_ms"]), "ms")
    score = report.score
    said = score is not None and score.final is not None
    return Compared(
        job=job,
        mark=mark,
        costs=costs,
        targets=report.latency.target if report.latency is not None else "",
        score=score.final if score is not None else None,
        before=score.before if score is not None else None,
        score_text=wording.score(score, score.final) if said and score and score.final is not None else "",
        before_text=wording.score(score, score.before) if score is not None and score.before is not None else "",
        metric=score.metric if score is not None else "",
        size=wording.size_bytes(report.sizes[0].compressed_bytes) if report.sizes else "",
    )


def cost_names(rows: Sequence[Compared]) -> list[str]:
    """Costs that any of them has, latency first."""
    found = dict.fromkeys(name for row in rows for name in row.costs)
    return sorted(found, key=lambda name: name != LATENCY)


def picture(rows: Sequence[Compared], cost: str) -> Markup:
    """Score against a cost, an arrow from each original to its small network. Empty without scores."""
    drawn = [row for row in rows if row.score is not None and cost in row.costs]
    drawn = [row for row in drawn if row.metric == drawn[0].metric]
    dots = []
    for row in drawn:
        figure = row.costs[cost]
        origin = None if row.before is None else (figure.before, row.before)
        dots.append(Dot(row.job.name or row.job.id, figure.after, row.score or 0.0, row.mark, origin))
    if not dots:
        return Markup("")
    return Scatter(dots, drawn[0].costs[cost].unit, wording.cost_name(cost), drawn[0].metric).draw()


def differences(jobs: Sequence[JobRecord]) -> list[tuple[str, list[str]]]:
    """Keys of recipes in which the jobs differ, each with what every job says there."""
    flat = [_flat(job.recipe) for job in jobs]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    rows = [(key, [recipe.get(key, "") for recipe in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(recipe: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """A recipe with dotted keys and its values as one would type them."""
    found: dict[str, str] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = written(value)
    return found
