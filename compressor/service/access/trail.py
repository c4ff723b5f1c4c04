"""What of a request is written into the audit log: whatever changed something, found from the route that did it."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from compressor.service.access.hosts import SAFE_METHODS
from compressor.service.access.principals import Principal

#: Not written down: what workers and agents say all the time, chunks, questions, and what is written elsewhere.
_SILENT = re.compile(
    r"/v1/work(/.*)?|/v1/devices/[^/]+/(poll|results)(/.*)?|/v1/inspect|/v1/uploads/[^/]+|/log(in|out)|/keys(/.*)?|/jobs/new/inspect"
)
_BYTES = 1 << 16


class Trail:
    """One request on its way out.

    Args:
        scope: Of the request.
        principal: Who sent it.
    """

    def __init__(self, scope: Scope, principal: Principal | None) -> None:
        self._scope, self._principal = scope, principal
        method, path = scope["method"], scope["path"]
        changes = method not in SAFE_METHODS
        self._told = principal is None or not changes or (method != "DELETE" and bool(_SILENT.fullmatch(path)))
        self._start: Headers | None = None

    def entry(self, message: Message) -> dict[str, Any] | None:
        """What to write before this part of the answer is sent; None for nothing."""
        if self._told or self._principal is None:
            return None
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._told = True
                return None
            self._start = Headers(raw=message["headers"])
            if not self._start.get("content-type", "").startswith("application/json"):
                return self._entry({})
            return None  # its first part says what was made
        if self._start is None:
            return None
        return self._entry(_document(message.get("body", b"")))

    def _entry(self, answer: dict[str, Any]) -> dict[str, Any]:
        self._told = True
        principal, params = self._principal, self._scope.get("path_params") or {}
        assert principal is not None
        made = answer.get("id")
        place = self._start.get("location", "") if self._start is not None else ""
        location = place.rstrip("/").rpartition("/")[2]
        given = next((str(value) for value in params.values()), None)
        details: dict[str, Any] = {} if principal.way == "key" else {"by": principal.way}
        if isinstance(made, str) and given not in (None, made):
            details["from"] = given
        return {
            "who": principal.who,
            "action": action(self._scope["method"], self._scope["path"], params),
            "subject": made if isinstance(made, str) else given or location or None,
            "project": principal.project,
            "details": details,
        }


def action(method: str, path: str, params: dict[str, Any]) -> str:
    """What a request does, as ``noun.verb``: ``job.submit``, ``job.cancel``, ``upload.create``, ``device.delete``."""
    values = {str(value) for value in params.values()}
    words = [word for word in path.removeprefix("/v1").split("/") if word and word not in values]
    if not words:
        return f"{method.lower()} {path}"
    noun = words[0].removesuffix("s")
    if len(words) > 1:
        return f"{noun}.{words[-1]}"
    if method == "POST":
        return f"{noun}.submit" if noun == "job" else f"{noun}.create"
    return f"{noun}.{ {'DELETE': 'delete', 'PUT': 'put', 'PATCH': 'change'}.get(method, method.lower()) }"


def _document(body: bytes) -> dict[str, Any]:
    if len(body) > _BYTES:
        return {}
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
