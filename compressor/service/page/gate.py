"""Between a request and a view: who asks, what was posted, and what every page shows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse

from compressor.service.access.csrf import csrf_token
from compressor.service.access.principals import Principal, principal_of
from compressor.service.errors import TooLargeError
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
        address=str(request.base_url).rstrip("/"),
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
