"""What the points of a sweep gave: rows, fronts, and the files in the sweep's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.errors import (
    CompressorError,
    TrainingError,
    UnreachableBudgetError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from compressor.jobs.networks import holds_networks, read_document
from compressor.jobs.sweeps.config import SweepConfig
from compressor.jobs.sweeps.points import Planned
from compressor.report import Report
from compressor.report.fronts import FrontPage, Mark
from compressor.report.page.front import front_svg, render_front
from compressor.report.wording import amount, percent
from compressor.search.front import Candidate, Front
from compressor.storage.codec import encode
from compressor.storage.files import atomic_write_json, atomic_write_text
from compressor.storage.reading import LARGE, read_json
from compressor.storage.version import VERSION

FRONT, PAGE, PICTURE = "front.json", "front.html", "front.svg"
SCHEMA_VERSION = 1
SWEEP = "sweep"
"""The ``kind`` of a front whose rows are folders of finished jobs."""


def point_row(report: Report) -> dict[str, Any]:
    """What the front needs of a point's report, as JSON values."""
    costs = {cost.name: (cost.original, cost.reached, cost.unit) for cost in report.costs}
    costs |= {budget.cost: (budget.original, budget.reached, budget.unit) for budget in report.budgets}
    score = report.score
    row: dict[str, Any] = encode(
        {
            "original": {name: original for name, (original, _, _) in costs.items()},
            "costs": {name: reached for name, (_, reached, _) in costs.items()},
            "units": {name: unit for name, (_, _, unit) in costs.items()},
            "limits": {budget.cost: budget.limit for budget in report.budgets},
            "met": all(budget.met for budget in report.budgets),
            "score": None if score is None else score.final,
            "before": None if score is None else score.before,
            "metric": "" if score is None else score.metric,
            "split": "" if score is None else score.split,
            "lower_is_better": score is not None and score.lower_is_better,
            "seconds": sum(report.stage_seconds.values()),
        }
    )
    return row


#: What a point fails by alone. Other errors (a full disk, settings that cannot be used) would meet the others, too.
PER_POINT = (TrainingError, UnreachableBudgetError, UnsupportedModelError, VerificationError)


@dataclass(frozen=True)
class Failure:
    """Why a point failed, as data: the name of its error's class, and the message."""

    kind: str
    message: str

    def error(self, message: str) -> CompressorError:
        """An error of the same kind."""
        return next((each for each in PER_POINT if each.__name__ == self.kind), CompressorError)(message)


@dataclass(frozen=True)
class Found:
    """What a job of a sweep gave: the ``point_row`` of a point, nothing of a search, or why it failed."""

    row: dict[str, Any] | None = None
    failure: Failure | None = None


@dataclass
class Outcome:
    """The points of a sweep that are done.

    Attributes:
        rows: by name what ``point_row`` says of them.
        failed: by name why a job failed.
    """

    sweep: SweepConfig
    planned: list[Planned]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)

    def add(self, name: str, found: Found) -> None:
        """Take up what a job gave."""
        if found.failure is not None:
            self.failed[name] = found.failure
        if found.row is not None:
            self.rows[name] = found.row

    @property
    def missing(self) -> list[str]:
        """The points that are not done."""
        return [point.name for point in self.planned if not point.searches and point.name not in self.rows]

    def said(self, name: str) -> str:
        """What a point reached, in a few words."""
        row = self.rows[name]
        parts = [f"{cost} {amount(row['costs'][cost], row['units'][cost])}" for cost in self.sweep.costs]
        return ", ".join([*parts, *([shown_score(row["score"], row["metric"])] if row["score"] is not None else [])])

    @property
    def count(self) -> int:
        """How many points there are to be."""
        return sum(not point.searches for point in self.planned)

    @property
    def fronts(self) -> dict[str | None, Front[str]]:
        """By target the front of its points, each found in a folder; latencies of several targets do not compare."""
        found: dict[str | None, Front[str]] = {}
        for target in self.sweep.targets:
            mine = [p for p in self.planned if p.name in self.rows and p.config.target == target]
            if not mine:
                continue
            rows = [self.rows[point.name] for point in mine]
            original = rows[0]["original"]
            if "latency" in original:  # what it took when each point was timed differs a little
                original = original | {"latency": max(row["original"]["latency"] for row in rows)}
            candidates = [
                Candidate(p.name, r["costs"], r["score"], p.name, p.notes | {"met": r["met"], "seconds": r["seconds"]})
                for p, r in zip(mine, rows, strict=True)
            ]
            lower = rows[0]["lower_is_better"]
            found[target] = Front(candidates, original, lower_is_better=lower, compared=self.sweep.costs)
        return found

    @property
    def points(self) -> list[dict[str, Any]]:
        """All points as plain rows, see ``Front.points``."""
        return [row for front in self.fronts.values() for row in front.points]

    @property
    def searches(self) -> list[Planned]:
        """The searches for all budgets among the jobs."""
        return [point for point in self.planned if point.searches]

    def to_json(self) -> dict[str, Any]:
        """The document that ``front.json`` holds."""
        job = self.sweep.jobs[0]
        finished, searches = len(self.rows) == self.count, [point.name for point in self.searches]
        row = next(iter(self.rows.values()), {})
        failed = {name: failure.message for name, failure in self.failed.items()}
        told = front_document(job.model, job.data, row, self.fronts, searches=searches, finished=finished)
        return {**told, "failed": failed}


def front_document(
    model: str,
    data: str | None,
    row: Mapping[str, Any],
    fronts: Mapping[str | None, Front[str]],
    *,
    searches: Sequence[str] = (),
    finished: bool = True,
) -> dict[str, Any]:
    """The document of ``front.json``; ``row`` is one of ``point_row``, what was found of a candidate its folder."""
    return {
        "schema_version": SCHEMA_VERSION,
        "compressor": VERSION,
        "kind": SWEEP,
        "model": model,
        "data": data,
        "metric": row.get("metric", ""),
        "before": row.get("before"),
        "units": row.get("units", {}),
        "finished": finished,
        "searches": list(searches),
        "points": [point for front in fronts.values() for point in front.points],
        "fronts": [{"target": target, **front.to_json(lambda folder: folder)} for target, front in fronts.items()],
    }


def shown_score(score: float, metric: str) -> str:
    """Accuracies as percentages, errors as they are."""
    return percent(score, 2) if "accuracy" in metric or "precision" in metric else f"{score:.4g}"


def save_outcome(outcome: Outcome) -> None:
    """Write ``front.json``, ``front.html`` and ``front.svg``, each atomically."""
    write_front(Path(outcome.sweep.out), outcome.to_json(), front_page(outcome))


def write_front(folder: Path, document: Mapping[str, Any], page: FrontPage) -> None:
    """Write ``front.json``, ``front.html`` and ``front.svg`` of what was found, each atomically."""
    atomic_write_json(folder / FRONT, document)
    atomic_write_text(folder / PAGE, render_front(page))
    if page.points:
        atomic_write_text(folder / PICTURE, front_svg(page, page.costs[0]))


def front_page(outcome: Outcome) -> FrontPage:
    """What the page of a sweep shows."""
    sweep = outcome.sweep
    row: Mapping[str, Any] = next(iter(outcome.rows.values()), {})
    tried: list[Mark] = []
    history: list[dict[str, Any]] = []
    settings: dict[str, dict[str, Any]] = {}
    left = [search for search in outcome.searches if holds_networks(search.config.out)]
    for search in left:
        document = read_document(search.config.out)
        of = f"{search.name}/" if len(left) > 1 else ""  # each calls its networks s0, s1, ...
        tried += [Mark(f"{of}{r['name']}", dict(r["costs"]), r["score"]) for r in document.evaluated]
        history = history or document.history
        settings |= {f"{of}{r['name']}": r["notes"].get("settings", {}) for r in document.front.get("rows", [])}
    limits: dict[str, list[float]] = {}
    for each in outcome.rows.values():
        for cost, limit in each["limits"].items():
            limits.setdefault(cost, []).append(limit)
    return FrontPage(
        model=sweep.jobs[0].model,
        data=sweep.jobs[0].data,
        methods=list(sweep.methods),
        metric=row.get("metric", ""),
        lower_is_better=bool(row.get("lower_is_better", False)),
        before=row.get("before"),
        original=next(iter(outcome.fronts.values())).original if outcome.rows else {},
        units=dict(row.get("units", {})),
        costs=list(sweep.costs),
        limits=limits,
        points=outcome.points,
        tried=tried,
        settings=settings,
        history=history,
        missing=outcome.missing,
        failed={name: failure.message for name, failure in outcome.failed.items()},
    )


@dataclass(frozen=True)
class SweepDocument:
    """What ``pick`` needs of a sweep's ``front.json``."""

    fronts: dict[str | None, Front[str]]
    searches: list[str]
    metric: str
    units: dict[str, str]
    finished: bool

    @staticmethod
    def read(folder: str | Path) -> SweepDocument:
        """Read ``front.json``. Raises ``UsageError``."""
        file = Path(folder) / FRONT
        value = read_json(file, "run the sweep again", limits=LARGE)
        if not isinstance(value, dict) or value.get("kind") != SWEEP or value.get("schema_version") != SCHEMA_VERSION:
            raise UsageError(f"{file} was not written by a sweep that this program reads; run the sweep again.")
        try:
            fronts = {each.get("target"): Front.from_json(each, _inner) for each in value["fronts"]}
            return SweepDocument(
                fronts,
                [_inner(name) for name in value["searches"]],
                str(value["metric"]),
                dict(value["units"]),
                bool(value["finished"]),
            )
        except UsageError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{file} does not hold together ({error}); run the sweep again.") from error


def _inner(name: Any) -> str:
    """The name of a folder right below the sweep's: a file must not lead elsewhere."""
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"The front names {str(name)[:60]!r}, which is no folder of the sweep.")
    return name
