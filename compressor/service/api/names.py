"""Names that recipes use: models, targets, data sets; and the workers that were heard of."""

from __future__ import annotations

import fnmatch
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from compressor.service.api import examples
from compressor.service.api.answer_schemas import DatasetList, ModelList, TargetList, WorkerList
from compressor.service.api.describing import answer, answers
from compressor.service.api.documents import worker_document
from compressor.service.api.projects import Caller
from compressor.service.api.targets import SEEN_SECONDS, device_names, present_labels, runtime_names
from compressor.service.services import Services

router = APIRouter(tags=["names"])


@router.get(
    "/models",
    summary="Names for `model`",
    responses={**answer(200, "Names, sorted.", {"models": ["resnet18", "resnet20_cifar"]}, ModelList), **answers(504)},
)
def models(
    request: Request,
    principal: Caller,
    q: Annotated[str, Query(max_length=100, description="A pattern such as `resnet*`, or a part of a name.")] = "",
) -> Response:
    """Shipped models and torchvision's; `timm:NAME` and `package.module:factory` are taken, too."""
    names = request.app.state.names.models()
    wild = q if any(sign in q for sign in "*?[") else f"*{q}*"
    return JSONResponse({"models": [name for name in names if not q or fnmatch.fnmatchcase(name, wild)]})


@router.get(
    "/targets",
    summary="Names for `target`",
    responses={
        **answer(
            200,
            "Runtimes of workers, and devices with whether they are here.",
            {"targets": [{"target": "jetson-1", "kind": "device", "here": True}]},
            TargetList,
        ),
        **answers(),
    },
)
def targets(request: Request, principal: Caller) -> Response:
    """A job whose device is away waits for it."""
    here = present_labels(request.app)
    found: list[dict[str, object]] = [{"target": name, "kind": "runtime", "here": None} for name in runtime_names()]
    found += [
        {"target": name, "kind": "device", "here": f"device:{name}" in here} for name in device_names(request.app)
    ]
    return JSONResponse({"targets": found})


@router.get(
    "/datasets",
    summary="Names for `data`",
    responses={
        **answer(200, "Names.", {"datasets": [{"name": "digits", "registered": False}]}, DatasetList),
        **answers(),
    },
)
def datasets(request: Request, principal: Caller) -> Response:
    """What ships, and what was registered with `--dataset`. Uploads are named `upload:ID`."""
    services: Services = request.app.state.services
    own: list[dict[str, object]] = [{"name": name, "registered": False} for name in ("digits", "listops")]
    there = [{"name": name, "registered": True} for name in sorted(services.settings.datasets)]
    return JSONResponse({"datasets": [*own, *there]})


@router.get(
    "/workers",
    summary="Workers that were heard of lately",
    responses={
        **answer(200, "Workers by name.", examples.WORKERS, WorkerList),
        **answers(),
    },
)
def workers(request: Request, principal: Caller) -> Response:
    """Within the last two minutes."""
    services: Services = request.app.state.services
    found = services.workers.list(SEEN_SECONDS)
    shown = [worker_document(each) for each in found]
    if principal.project is not None:
        shown = [{**each, "job": None} for each in shown]  # it may be another project's
    return JSONResponse({"workers": shown})
