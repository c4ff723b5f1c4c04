"""From a recipe that came in to a job in the queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI

from compressor.budget import parse_budgets
from compressor.errors import UsageError
from compressor.jobs.asked import known_formats
from compressor.jobs.recipes.read import RecipeError
from compressor.options import Names, read
from compressor.service.api.schemas import Pick
from compressor.service.api.targets import device_names, labels_of, runtime_names
from compressor.service.errors import ConflictError, NotFoundError
from compressor.service.recipes import Policy, Submission, Written, submission_of
from compressor.service.recipes.policy import CODE
from compressor.service.records import DONE, JobRecord, NewJob, UploadRecord
from compressor.service.services import Services
from exporters.registry import INT8_FORMAT

_FRONT = "front.json"
"""What sweeps and searches for several networks leave."""


def policy_of(app: FastAPI, values: Mapping[str, Any] | None = None) -> Policy:
    """What recipes may name here; ``values`` of the recipe spare the look at devices where it names no target."""
    services: Services = app.state.services
    measures = values is None or "target" in values or "targets" in values
    return Policy(
        datasets=tuple(services.settings.datasets),
        targets=(*runtime_names(), *(device_names(app) if measures else ())),
        models=app.state.names.models_if_known(),
        hugging_face=services.settings.allow_hf,
    )


def submit_recipe(
    app: FastAPI,
    written: Written,
    *,
    project: str,
    kind: str | None = None,
    name: str = "",
    priority: int = 0,
    submitted_by: str = "",
    idempotency_key: str | None = None,
) -> JobRecord:
    """Check a recipe and queue it.

    Raises:
        RecipeError: it cannot be, is not taken here, or names an upload or a job that cannot be used.
        TooManyError, QuotaError, ConflictError: as ``Jobs.submit``.
    """
    services: Services = app.state.services
    found = submission_of(written, policy_of(app, written.values), kind)
    require_there(services, project, found)
    return services.jobs.submit(
        NewJob(
            project=project,
            recipe=found.recipe,
            recipe_text=written.text,
            name=printable_name(name) or _named(found),
            kind=found.kind,
            priority=priority,
            labels=tuple(sorted(found.labels | labels_of(app, found.targets))),
            submitted_by=submitted_by,
            idempotency_key=idempotency_key,
            parent=found.start,
            uploads=tuple(found.uploads),
        )
    )


def submit_pick(app: FastAPI, parent: JobRecord, asked: Pick, *, submitted_by: str, key: str | None) -> JobRecord:
    """Queue a job that takes a network from what ``parent`` left.

    Raises:
        ConflictError: that job is not done, or left nothing to pick from. RecipeError: the budgets, formats or target
            cannot be.
    """
    services: Services = app.state.services
    if parent.state != DONE:
        raise ConflictError(f"The job {parent.id} is {parent.state}; a network can be picked once it is done.")
    if not any(file.path == _FRONT for file in services.files.list(parent.id)):
        raise ConflictError(
            f"The job {parent.id} left no {_FRONT} to pick from; pick from a sweep, or from a job of a search "
            "that leaves several networks (supernet)."
        )
    try:
        budgets = parse_budgets(asked.budgets)
        export = read("export", Names(), asked.export)
        known_formats(export)
    except UsageError as error:
        raise RecipeError(str(error), key="export" if "export" in str(error) else "budgets") from error
    if INT8_FORMAT in export:
        raise RecipeError(f"{INT8_FORMAT} takes its ranges from data; export it later.", key="export")
    known = (*runtime_names(), *device_names(app))
    if asked.target is not None and asked.target not in known:
        raise RecipeError(f"There is no target {asked.target[:80]!r} here; GET /v1/targets lists them.", key="target")
    recipe: dict[str, Any] = {"budgets": {each.cost: each.text for each in budgets}, "export": list(export)}
    if asked.target is not None:
        recipe["target"] = asked.target
    labels = labels_of(app, (asked.target,) if asked.target else ()) | ({CODE} & set(parent.labels))
    shown = ", ".join(f"{cost} {text}" for cost, text in recipe["budgets"].items())
    return services.jobs.submit(
        NewJob(
            project=parent.project,
            recipe=recipe,
            name=printable_name(asked.name) or f"{parent.name} at {shown}"[:200],
            kind="pick",
            labels=tuple(sorted(labels)),
            submitted_by=submitted_by,
            idempotency_key=key,
            parent=parent.id,
        )
    )


def printable_name(name: str) -> str:
    """A name on one line, without what a terminal or a page would obey."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in name).split())[:200]


def require_there(services: Services, project: str, found: Submission) -> tuple[UploadRecord, ...]:
    """The uploads that a recipe names.

    Raises:
        RecipeError: an upload, or the job to start from, is not there for this project, or cannot be used.
    """
    asked = (("weights", found.weights, ("weights",)), ("data", found.data, ("arrays", "images")))
    uploads = [_require_upload(services, project, key, name, kinds) for key, name, kinds in asked if name is not None]
    if found.start is not None:
        _require_start(services, project, found.start)
    return tuple(uploads)


def _require_upload(services: Services, project: str, key: str, upload_id: str, kinds: Collection[str]) -> UploadRecord:
    try:
        upload = services.uploads.get(upload_id, project)
    except NotFoundError:
        raise RecipeError(f"There is no upload {upload_id}; send the file to /v1/uploads first.", key=key) from None
    if upload.state != DONE:
        raise RecipeError(f"The upload {upload_id} is {upload.state}; finish it first.", key=key)
    if upload.kind not in kinds:
        raise RecipeError(
            f"{key} takes uploads of {' or '.join(kinds)}, and {upload_id} is one of {upload.kind}.", key=key
        )
    return upload


def _require_start(services: Services, project: str, job_id: str) -> None:
    try:
        job = services.jobs.get(job_id, project)
    except NotFoundError:
        raise RecipeError(f"There is no job {job_id} to start from in this project.", key="start") from None
    if job.state != DONE:
        raise RecipeError(f"The job {job_id} is {job.state}; a job can start from it once it is done.", key="start")


def _named(found: Submission) -> str:
    budgets = found.recipe.get("budgets", {})
    said = ", ".join(f"{cost} {'/'.join(each) if isinstance(each, list) else each}" for cost, each in budgets.items())
    return f"{found.recipe['model']} {said}"[:200]
