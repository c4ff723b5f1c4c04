"""``/jobs/{id}``: one job, while it runs and after."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from compressor.errors import UsageError
from compressor.report import Report, wording
from compressor.report.page import sections
from compressor.service.access.principals import Principal
from compressor.service.api.targets import Waiting
from compressor.service.errors import NotFoundError
from compressor.service.page.documents import load_fronts, load_report, paths, shown_files
from compressor.service.page.fronts import FrontView
from compressor.service.page.gate import Asker, Parts, page
from compressor.service.page.pictures.lines import curve_label, curve_picture, curve_title
from compressor.service.page.story.shelf import Shelf
from compressor.service.page.story.story import Story
from compressor.service.records import JobRecord
from compressor.service.services import Services
from compressor.storage.yaml_text import dump_yaml

router = APIRouter(include_in_schema=False)
_COLOURS = ("accent", "second", "third", "fourth")
_MOST_CURVES = 8
_CURES = {
    2: "Something in the recipe cannot be used here. Change it and submit it as a new job.",
    3: "Ask for a larger budget, or leave fewer layers out; the form shows what is reachable before it submits.",
    4: "The model cannot be traced as it is; docs/models.md lists what helps.",
    5: "The small network was not what the search saw, so it was not handed over. Please report this model.",
}
_AGAIN = "A retry goes on from the last stage that was finished."


@router.get("/jobs/{job_id}")
def job(request: Request, asker: Asker, services: Parts, job_id: str) -> Response:
    """The job, with all that is known of it by now."""
    record = _record(request, asker, services, job_id)
    return page(request, "job.html", **_shown(request, services, record))


@router.get("/jobs/{job_id}/live")
def live(
    request: Request, asker: Asker, services: Parts, job_id: str, seen: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """The part that changes while the job runs; nothing if it shows what ``seen`` says."""
    record = _record(request, asker, services, job_id)
    version = shelf_of(request).look(services.events, job_id, lambda story: _version(record, story))
    if seen == version:
        return Response(status_code=204)
    return page(request, "job_live.html", **_shown(request, services, record))


@router.get("/jobs/{job_id}/curves.json")
def curves(
    request: Request, asker: Asker, services: Parts, job_id: str, seen: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """The curves by key, for ``curves.js``; nothing if there is nothing new since the event ``seen``."""
    record = services.jobs.get(job_id, asker.project)

    def told(story: Story) -> dict[str, Any]:
        found = [
            {
                "key": curve.key,
                "title": curve_title(curve),
                "quantity": curve_label(curve),
                "steps": list(curve.steps),
                "values": list(curve.values),
            }
            for curve in list(story.curves.values())[:_MOST_CURVES]
        ]
        return {"seen": story.last, "ended": record.ended, "curves": found}

    document = shelf_of(request).look(services.events, job_id, told)
    return (
        Response(status_code=204) if document["seen"] == seen and seen and not record.ended else JSONResponse(document)
    )


@router.get("/jobs/{job_id}/report")
def report(
    request: Request, asker: Asker, services: Parts, job_id: str, point: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """The whole report of a job, or of a point of a sweep."""
    from compressor.report.page.html import report_body

    record = services.jobs.get(job_id, asker.project)
    if point and not re.fullmatch(r"[\w.+%-]+", point):
        raise NotFoundError(f"The job has no point {point!r}; go back to it and choose another.")
    there = paths(services.files.list(job_id))
    found = load_report(services.files, job_id, there, point)
    if found is None:
        raise NotFoundError("This job has no report: it has not come that far. Go back to it to see where it is.")
    return page(request, "report.html", job=record, point=point, report=found, body=report_body(found))


def shelf_of(request: Request) -> Shelf:
    """The stories that this server keeps."""
    state = request.app.state
    if not hasattr(state, "page_shelf"):
        state.page_shelf = Shelf()
    found: Shelf = state.page_shelf
    return found


def _record(request: Request, asker: Principal, services: Services, job_id: str) -> JobRecord:
    """A job, with what it waits for just now."""
    record = services.jobs.get(job_id, asker.project)
    return replace(record, waiting_for=Waiting(request.app).of(record))


def _shown(request: Request, services: Services, record: JobRecord) -> dict[str, Any]:
    """What the page of a job shows."""
    found = shelf_of(request).look(services.events, record.id, lambda story: _told(record, story))
    files = shown_files(services.files.list(record.id))
    there = {file.path for file in files}
    result, fronts, unread = None, [], ""
    try:
        result = load_report(services.files, record.id, there)
        fronts = load_fronts(services.files, record.id, there)
    except UsageError as error:  # a worker's file, which is no reason to show nothing
        unread = str(error)
    failure = dict(record.error or {})
    code = failure.get("exit_code")
    return {
        "job": record,
        "recipe_text": _written(record),
        "error_text": str(failure.get("text") or "") if record.state == "failed" else "",
        "cure": _CURES.get(code, _AGAIN) if isinstance(code, int) else _AGAIN,
        "to_change": code in (2, 3, 4),
        "files": files,
        "reports": {path.rpartition("/")[0] for path in there if path.endswith("/report.json")},
        "result": None if result is None else _result(result),
        "fronts": fronts,
        "points": _points(fronts),
        "unread": unread,
        **found,
    }


def _written(record: JobRecord) -> str:
    """The recipe as it was sent; in lines where a program sent it in a single one."""
    text = record.recipe_text or ""
    return text if "\n" in text.strip() else dump_yaml(dict(record.recipe))


def _points(fronts: list[FrontView]) -> int:
    return sum(len(front.points) for front in fronts)


def _told(record: JobRecord, story: Story) -> dict[str, Any]:
    """What a story says, copied, since it goes on."""
    drawn = list(story.curves.values())[:_MOST_CURVES]
    return {
        "version": _version(record, story),
        "stages": list(story.stages),
        "stage_now": None if story.stage is None else story.stage.name,
        "curves": [
            {"key": curve.key, "title": curve_title(curve), "picture": curve_picture(curve, colour)}
            for index, curve in enumerate(drawn)
            if (colour := _COLOURS[index % len(_COLOURS)])
        ],
        "metrics": list(story.metrics),
        "trials": sorted(story.trials, key=lambda trial: trial.number),
        "decision": story.decision,
        "warnings": list(story.warnings),
        "lines": list(story.lines),
    }


def _result(found: Report) -> dict[str, Any]:
    """The verdict, the figures to remember, and what was asked and reached."""
    head = wording.headline(found)
    return {
        "head": head,
        "warnings": wording.warnings(found),
        "cards": sections.cards(found),
        "budgets": sections.budgets(found),
        "score": sections.score(found),
    }


def _version(record: JobRecord, story: Story) -> str:
    """A mark of what is shown: the same as long as nothing of it changes."""
    parts = (story.last, record.state, record.stage, record.done, record.waiting_for, record.priority, record.attempt)
    return "-".join(str(part) for part in (*parts, int(record.cancel_requested)))
