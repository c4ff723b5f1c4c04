"""What a recipe's model costs, before it is submitted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from compressor.service.access.principals import project_of
from compressor.service.api import examples
from compressor.service.api.answer_schemas import Inspected
from compressor.service.api.bodies import whole_body
from compressor.service.api.describing import answer, answers, body
from compressor.service.api.projects import AskedProject, Caller
from compressor.service.api.submitting import policy_of, require_there
from compressor.service.api.threads import in_thread
from compressor.service.inspecting.inspector import Inspector
from compressor.service.recipes import MOST_BYTES, Written, read_body, submission_of

router = APIRouter(tags=["names"])


@router.post(
    "/inspect",
    summary="What a model costs, and can be brought to",
    openapi_extra=body(examples.RECIPE),
    responses={
        **answer(
            200, "Costs with their units, groups, blocks, choices and what is fixed.", examples.INSPECTED, Inspected
        ),
        **answers(413, 422, 429, 504),
    },
)
async def inspect(
    request: Request,
    principal: Caller,
    kind: Annotated[Literal["compress", "sweep"] | None, Query(description="Told by the budgets if left out.")] = None,
    project: AskedProject = None,
) -> Response:
    """The body is a recipe, which may lack budgets. Uploads are looked at as its job would; what is not there is
    refused as `POST /v1/jobs` refuses it. Nothing is trained. The same again is quick."""
    data = await whole_body(request, MOST_BYTES)
    written = await in_thread(read_body, data, request.headers.get("content-type", "application/json"))
    return JSONResponse(await inspected(request.app, written, project_of(principal, project), kind))


async def inspected(app: FastAPI, written: Written, project: str, kind: str | None = None) -> dict[str, Any]:
    """What ``POST /inspect`` answers to somebody of a project. Raises as ``Inspector.inspect``, and ``RecipeError``."""
    inspector: Inspector = app.state.inspector
    policy = await in_thread(policy_of, app)
    found = await in_thread(submission_of, written, policy, kind, whole=False)
    uploads = await in_thread(require_there, app.state.services, project, found)
    return await inspector.inspect(found, uploads)
