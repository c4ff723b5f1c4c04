"""``/jobs/new``: the form of a new job, and what it shows before it submits."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from compressor.errors import UsageError
from compressor.service.access.principals import Principal, project_of, require
from compressor.service.api.submitting import policy_of, submit_recipe
from compressor.service.api.threads import in_thread
from compressor.service.errors import (
    ConflictError,
    NotFoundError,
    QuotaError,
    RefusedError,
    TooLargeError,
    TooManyError,
)
from compressor.service.page.forms.budgets import units_of
from compressor.service.page.forms.fields import (
    Field,
    advanced_groups,
    cost_names,
    main_fields,
    method_groups,
    method_names,
)
from compressor.service.page.forms.job_form import JobForm, from_posted, from_recipe
from compressor.service.page.gate import Asker, Parts, Posted, page, text_of, to
from compressor.service.page.preview import preview_of
from compressor.service.page.views.uploads import add_upload, kind_of_data
from compressor.service.recipes import Written
from compressor.service.services import Services
from compressor.storage.yaml_text import dump_yaml

router = APIRouter(include_in_schema=False)
_FILES = {"weights_file": "weights", "data_file": "data"}
_MOST_MODELS = 400
"""Names that the form proposes; others can be typed."""


@router.get("/jobs/new")
def new(
    request: Request,
    asker: Asker,
    services: Parts,
    job_id: Annotated[str, Query(alias="from", max_length=40)] = "",
) -> Response:
    """The empty form, or that of a job that is to be changed."""
    require(asker, "submit")
    form = JobForm()
    if job_id:
        job = services.jobs.get(job_id, asker.project)
        form = from_recipe(job.recipe, name=job.name, priority=job.priority)
    return _form_page(request, asker, services, form)


@router.post("/jobs/new")
async def submit(request: Request, asker: Asker, services: Parts, posted: Posted) -> Response:
    """Submit the job, or show the form again with what is to be mended."""
    require(asker, "submit")
    form, project = await in_thread(_taken, asker, services, posted)
    recipe = form.recipe()
    name, priority, _ = form.require_loose()
    if text_of(posted, "do") == "inspect":
        shown = await preview_of(request.app, recipe, project) if recipe.get("model") else None
        return await in_thread(_form_page, request, asker, services, form, posted, preview=shown)

    def submitted() -> Response:
        if not form.errors:
            try:
                job = submit_recipe(
                    request.app,
                    Written(recipe, dump_yaml(recipe), is_yaml=True),
                    project=project,
                    name=name,
                    priority=priority,
                    submitted_by=asker.who,
                    idempotency_key=text_of(posted, "once")[:64] or None,
                )
            except UsageError as error:
                form.take(error)
            except ConflictError:  # the reader went back to a form that was sent, and changed it
                form.errors[""] = "This form was submitted before. Submit again, and it becomes another job."
                return _form_page(request, asker, services, form, status=422, shown_before=True)
            except (NotFoundError, TooManyError, QuotaError) as error:
                form.errors[""] = str(error)
            else:
                return to(f"/jobs/{job.id}")
        return _form_page(request, asker, services, form, posted, status=422)

    return await in_thread(submitted)


@router.post("/jobs/new/inspect")
async def inspect(request: Request, asker: Asker, posted: Posted) -> Response:
    """What the network in the form costs and how small it can become, alone, for the button."""
    require(asker, "submit")
    form = from_posted(posted.multi_items())
    recipe = form.recipe()
    if not recipe.get("model"):
        return page(request, "preview.html", preview={"model": "", "wrong": form.errors["model"]})
    project = project_of(asker, text_of(posted, "project") or None)
    return page(request, "preview.html", preview=await preview_of(request.app, recipe, project))


def _taken(asker: Principal, services: Services, posted: FormData) -> tuple[JobForm, str]:
    """The form and its project. Files are stored, and named where they stand for something."""
    form = from_posted(posted.multi_items())
    project = asker.project or "default"
    try:
        project = project_of(asker, text_of(posted, "project") or None)
    except NotFoundError as error:
        form.errors["project"] = str(error)
        return form, project
    for control, key in _FILES.items():
        file = posted.get(control)
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        try:
            kind = "weights" if key == "weights" else kind_of_data(file.filename)
            upload = add_upload(services, asker, project, file, kind)
        except (UsageError, RefusedError, TooLargeError, QuotaError) as error:
            form.errors[control] = str(error)
            continue
        form.typed[key] = [f"upload:{upload.id}"]
    return form, project


def _form_page(
    request: Request,
    asker: Principal,
    services: Services,
    form: JobForm,
    posted: FormData | None = None,
    *,
    status: int = 200,
    preview: dict[str, Any] | None = None,
    shown_before: bool = False,
) -> Response:
    """The form with what stands in it. ``once`` makes that a form which is sent twice is one job."""
    groups = (*advanced_groups(), *method_groups())
    inside = {field.name for group in groups for field in group.fields}
    said = any(name in inside and any(values) for name, values in form.typed.items())
    return page(
        request,
        "new.html",
        status,
        form=form,
        once=(text_of(posted, "once") if posted is not None else "") or secrets.token_hex(16),
        main=_main(request, asker, services),
        groups=groups,
        advanced_open=bool(inside & set(form.errors)) or (said and posted is None and not shown_before),
        costs=cost_names(),
        units=units_of,
        most_bytes=services.settings.upload_bytes,
        preview=preview,
    )


def _main(request: Request, asker: Principal, services: Services) -> dict[str, Field]:
    """The fields of the open part, with the names that there are here."""
    policy = policy_of(request.app)
    uploads = [each for each in services.uploads.list(asker.project) if each.state == "done"]
    weights = [f"upload:{each.id}" for each in uploads if each.kind == "weights"]
    data = [f"upload:{each.id}" for each in uploads if each.kind != "weights"]
    models = tuple(policy.models or ("resnet20_cifar",))[:_MOST_MODELS]
    chosen: dict[str, tuple[str, tuple[str, ...]]] = {
        "model": ("text", models),
        "weights": ("text", ("default", "none", *weights)),
        "data": ("text", ("digits", "listops", *policy.datasets, *data)),
        "search": ("choice", method_names()),
        "target": ("choice", tuple(policy.targets)),
    }
    found = main_fields()
    return found | {
        name: replace(found[name], control=control, choices=choices) for name, (control, choices) in chosen.items()
    }
