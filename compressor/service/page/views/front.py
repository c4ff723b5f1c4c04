"""``/jobs/{id}/front``: the front of a sweep, a budget that is picked on it, and the job that writes the network."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from compressor.budget import Budget, parse_budget
from compressor.errors import CompressorError, UsageError
from compressor.jobs.recipes.read import RecipeError
from compressor.report import wording
from compressor.report.page.markup import Markup
from compressor.service.access.principals import require
from compressor.service.api.schemas import Pick
from compressor.service.api.submitting import submit_pick
from compressor.service.errors import ConflictError, NotFoundError
from compressor.service.page.documents import load_fronts, paths
from compressor.service.page.forms.budgets import budgets_of, units_of
from compressor.service.page.fronts import FrontView, Point
from compressor.service.page.gate import Asker, Parts, Posted, page, text_of, to
from compressor.service.page.pictures.marks import Mark
from compressor.service.page.pictures.scatter import Dot, Scatter
from compressor.service.records import DONE, JobRecord
from compressor.service.services import Services
from exporters.registry import FORMATS

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Query(max_length=200)]


@router.get("/jobs/{job_id}/front")
def front(
    request: Request,
    asker: Asker,
    services: Parts,
    job_id: str,
    cost: Text = "",
    budget: Text = "",
    unit: Text = "",
    target: Text = "",
) -> Response:
    """The picture, the points, and what a budget would pick."""
    job = services.jobs.get(job_id, asker.project)
    return page(request, "front.html", **_shown(services, job, cost, budget, unit, target))


@router.get("/jobs/{job_id}/front/choice")
def choice(
    request: Request,
    asker: Asker,
    services: Parts,
    job_id: str,
    cost: Text = "",
    budget: Text = "",
    unit: Text = "",
    target: Text = "",
) -> Response:
    """What a budget would pick, alone, for the slider."""
    job = services.jobs.get(job_id, asker.project)
    return page(request, "front_choice.html", **_shown(services, job, cost, budget, unit, target))


@router.post("/jobs/{job_id}/pick")
def pick(request: Request, asker: Asker, services: Parts, job_id: str, form: Posted) -> Response:
    """A job that writes the network which a budget picks."""
    require(asker, "submit")
    job = services.jobs.get(job_id, asker.project)
    said = {name: text_of(form, name) for name in ("cost", "budget", "unit", "target")}
    shown = _shown(services, job, **said)
    formats = [each for each in form.getlist("export") if isinstance(each, str)]
    if shown["point"] is None:
        return page(request, "front.html", 422, **{**shown, "formats_chosen": formats})
    try:
        asked = Pick(budgets={shown["cost"]: shown["asked"]}, export=formats or ["none"], target=shown["front"].target)
        made = submit_pick(request.app, job, asked, submitted_by=asker.who, key=text_of(form, "once")[:64] or None)
    except (RecipeError, ConflictError) as error:
        again = isinstance(error, ConflictError) and job.state == DONE
        mistake = "This form was sent before, with other choices. Send it again, and it becomes another job."
        shown |= {"mistake": mistake if again else str(error), "formats_chosen": formats}
        return page(request, "front.html", 422, **shown)
    return to(f"/jobs/{made.id}")


def _shown(services: Services, job: JobRecord, cost: str, budget: str, unit: str, target: str) -> dict[str, Any]:
    """What the page shows for what was chosen. ``once`` makes that a form which is sent twice is one job.

    Raises:
        NotFoundError: the job left no front.
    """
    fronts = load_fronts(services.files, job.id, paths(services.files.list(job.id)))
    if not fronts:
        raise NotFoundError("This job has no front yet: it is no sweep, or none of its points is done.")
    found = next((each for each in fronts if each.target == (target or None)), fronts[0])
    cost = cost if cost in found.costs else found.costs[0]
    values = sorted(point.costs[cost] for point in found.points)
    asked, mistake, point, limit = "", "", None, None
    try:
        said = budgets_of(cost, budget, unit or units_of(cost)[0][0]) if budget else None
        if isinstance(said, list):
            raise UsageError("One budget is picked at a time; leave the others out.")
        chosen = parse_budget(cost, said) if said is not None else _middle(found, cost)
        asked, limit = chosen.text, chosen.limit(found.original[cost])
        point = found.best([chosen])
    except CompressorError as error:
        mistake = str(error)
    original = found.original[cost]
    shares = [value / original * 100 for value in values] if original else [0.0, 100.0]
    share = None if limit is None or not original else limit / original * 100
    low, high = min(shares, default=0.0), max(shares, default=100.0)
    return {
        "job": job,
        "front": found,
        "fronts": fronts,
        "cost": cost,
        "unit": found.units.get(cost, ""),
        "units": units_of(cost),
        "unit_chosen": unit or units_of(cost)[0][0],
        "typed": budget or asked.rstrip("%"),
        "asked": asked,
        "point": point,
        "mistake": mistake,
        "limit": limit,
        "slider": {"low": _floor(low), "high": _ceil(high), "at": share},
        "once": secrets.token_hex(16),
        "picture": _picture(found, cost, limit, point),
        "formats": FORMATS.names(),
        "formats_chosen": ["onnx"],
    }


def _middle(front: FrontView, cost: str) -> Budget:
    """A budget in the middle of the front, to begin with: that of the median point, with a little air."""
    values = sorted(point.costs[cost] for point in front.points)
    original = front.original[cost]
    share = _ceil(values[len(values) // 2] / original * 100) if original else 100.0
    return parse_budget(cost, f"{share:g}%")


def _floor(share: float) -> float:
    return int(share * 10) / 10


def _ceil(share: float) -> float:
    return -int(-share * 10 // 1) / 10


def _picture(front: FrontView, cost: str, limit: float | None, chosen: Point | None) -> Markup:
    """Score against a cost; without scores nothing is drawn, since there is nothing to choose by but cost."""
    scored = [point for point in front.points if point.score is not None]
    dots = []
    for point in scored:
        colour = "third" if point.beaten_by is not None else "accent"
        taken = chosen is not None and chosen.name == point.name
        mark = Mark("second", "diamond") if taken else Mark(colour)
        dots.append(Dot(point.name, point.costs[cost], point.score or 0.0, mark, label=taken))
    best: list[tuple[float, float]] = []
    top = float("-inf")
    for point in sorted(scored, key=lambda each: (each.costs[cost], -front.quality(each))):
        if front.quality(point) > top:
            top = front.quality(point)
            best.append((point.costs[cost], point.score or 0.0))
    unit = front.units.get(cost, "")
    return Scatter(dots, unit, wording.cost_name(cost), front.metric, best, limit).draw()
