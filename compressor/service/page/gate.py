"""Between a request and a view: who asks, what was posted, and how errors look in a browser."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from compressor.errors import CompressorError, UnreachableBudgetError, UsageError
from compressor.service.access.csrf import csrf_token
from compressor.service.access.principals import Principal, principal_of
from compressor.service.errors import ServiceError, TooLargeError
from compressor.service.page.rendering import render
from compressor.service.services import Services

Asker = Annotated[Principal, Depends(principal_of)]
"""Who asks."""
MOST_FIELDS = 1000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What pages may load and run: files of this server alone, and nothing that stands in the page itself."""
_FORM_BYTES = 1 << 20
"""What the fields of a form may take beside its files."""


def services_of_request(request: Request) -> Services:
    """The parts of the server."""
    found: Services = request.app.state.services
    return found


Parts = Annotated[Services, Depends(services_of_request)]
"""The parts of the server."""


async def _posted(request: Request) -> FormData:
    """The fields and files of a form. What is too large is refused before it is read."""
    services = services_of_request(request)
    most = services.settings.upload_bytes + _FORM_BYTES
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > most:
        raise TooLargeError(
            f"This form has {int(said):,} bytes, and {most:,} are the most; send large files with 'compress submit'."
        )
    return await request.form(max_files=4, max_fields=MOST_FIELDS)


Posted = Annotated[FormData, Depends(_posted)]
"""What a form sent."""


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer, with what the frame of every page shows."""
    principal: Principal | None = getattr(request.state, "principal", None)
    text = render(
        template,
        now=services_of_request(request).clock.now(),
        principal=principal,
        csrf=csrf_token(request) if principal is not None else "",
        may_submit=principal is not None and principal.may("submit"),
        may_admin=principal is not None and principal.may("admin"),
        path=request.url.path,
        **values,
    )
    return HTMLResponse(text, status, headers={"Content-Security-Policy": POLICY})


def to(place: str) -> RedirectResponse:
    """Go on elsewhere with a GET."""
    return RedirectResponse(place, status_code=303)


def text_of(form: FormData, name: str) -> str:
    """The text in a field, without the spaces around it; empty if there is none."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


class PageRoute(APIRoute):
    """A route whose errors are pages: what was found, what was expected, what to do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except CompressorError as error:
                return problem(request, status_of(error), str(error), getattr(error, "retry_after", None))
            except RequestValidationError as error:
                where = ".".join(str(part) for part in error.errors()[0]["loc"])
                return problem(
                    request, 422, f"The address has a {where} that cannot be used; go back and choose again."
                )
            except HTTPException as error:
                return problem(request, error.status_code, str(error.detail))

        return handled


def status_of(error: CompressorError) -> int:
    """The HTTP status that says what kind of error it is."""
    if isinstance(error, ServiceError):
        return error.status
    return 422 if isinstance(error, (UsageError, UnreachableBudgetError)) else 500


def problem(request: Request, status: int, detail: str, retry_after: int | None = None) -> Response:
    """An error as a page; to htmx as a line, which ``live.js`` shows without leaving the page."""
    if "hx-request" in request.headers:
        response: Response = page(request, "problem_line.html", status, detail=detail)
    else:
        title = HTTPStatus(status).phrase
        response = page(request, "problem.html", status, title=title, detail=detail, code=status)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response
