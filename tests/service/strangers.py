"""Every route of the app, asked by those who must not be answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, routing
from starlette.routing import Mount

LOOP = asyncio.new_event_loop()
"""One for all: starting a loop for each of thousands of requests takes longer than the requests."""


class Caller:
    """Asks an app, as TestClient does, in a fraction of its time."""

    def __init__(
        self, app: FastAPI, headers: dict[str, str] | None = None, *, base_url: str, client: tuple[str, int]
    ) -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=client)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers)
        self.cookies = self._client.cookies

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return LOOP.run_until_complete(self._client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def put(self, path: str, **more: Any) -> httpx.Response:
        return self.request("PUT", path, **more)

    def patch(self, path: str, **more: Any) -> httpx.Response:
        return self.request("PATCH", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.request("DELETE", path, **more)

    def options(self, path: str, **more: Any) -> httpx.Response:
        return self.request("OPTIONS", path, **more)


#: Answered to everybody, by intention. Whatever else is must not be here by accident.
PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/v1/healthz"),
    ("GET", "/v1/readyz"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/favicon.ico"),
    ("GET", "/static/{name:path}"),
}
PUBLIC_MOUNTS = {"/static"}
#: Every team sees these: what there is to work with.
SHARED = re.compile(
    r"/v1/(models|targets|datasets|workers|openapi\.json)|(/v1)?/devices(/.*)?|/metrics|/logout|/v1/inspect|/jobs/new(/inspect)?"
    r"|/static/.*"
)
SCOPES = ("read", "submit", "agent", "admin")
AWAY: dict[str, Any] = {"base_url": "http://farm.example", "client": ("203.0.113.7", 50000)}


@dataclass(frozen=True)
class Visit:
    """A method of a route."""

    method: str
    template: str

    def path(self, values: dict[str, str]) -> str:
        """The path with what stands for its parameters; an unknown parameter is a mistake of the test."""
        return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: values[match[1]], self.template)

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"\{(\w+)(?::\w+)?\}", self.template)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


@dataclass
class World:
    """An app, whose things they are, and keys to it.

    Attributes:
        owned: Values of path parameters: things of the project alpha.
        marks: Texts that only alpha may read.
        stranger: A key with all scopes but for the project beta.
        scoped: By scope, a key for all projects with that scope alone.
    """

    app: FastAPI
    owned: dict[str, str]
    marks: tuple[str, ...]
    stranger: str
    scoped: dict[str, str]
    bodies: dict[str, Any] = field(default_factory=dict)

    def client(self, key: str | None = None) -> Caller:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return Caller(self.app, headers, **AWAY)


def visits(app: FastAPI) -> Iterator[Visit]:
    """Every method of every route; what answers GET answers HEAD. Mounts of files must be known to be public."""
    flat = getattr(routing, "iter_route_contexts", None)  # later versions keep routers that were included as they are
    for route in flat(app.routes) if flat is not None else app.routes:
        if isinstance(getattr(route, "original_route", route), Mount):
            if route.path not in PUBLIC_MOUNTS:
                yield Visit("GET", f"{route.path}/x")
            continue
        methods = getattr(route, "methods", None)
        assert methods, f"what kind of route is {route!r}?"
        answered = {*methods, *(["HEAD"] if "GET" in methods else [])}
        yield from (Visit(method, str(route.path)) for method in sorted(answered))


def send(client: Caller, world: World, visit: Visit, values: dict[str, str] | None = None) -> Any:
    """Ask a route, with a body that it would take."""
    more: dict[str, Any] = {"headers": {"Accept": "application/json", "Upload-Offset": "0"}}
    if visit.method in ("POST", "PUT", "PATCH"):
        found = world.bodies.get(str(visit), {})
        if isinstance(found, bytes):
            more["content"] = found
            more["headers"]["Content-Type"] = "application/octet-stream"
        elif visit.template.startswith("/v1"):
            more["json"] = found
        else:
            more["data"] = found
    return client.request(visit.method, visit.path(values or world.owned), **more)


def needed(visit: Visit) -> str | None:
    """The scope that a route is for."""
    path = visit.template
    if path.startswith("/v1/work/") or re.search(r"^/v1/devices/\{\w+\}/(poll|results)", path):
        return "agent"
    if re.match(r"(/v1)?/(audit|keys)", path):
        return "admin"
    if path == "/logout":
        return None
    return "read" if visit.method in ("GET", "HEAD") else "submit"


def is_public(visit: Visit) -> bool:
    return ("GET" if visit.method == "HEAD" else visit.method, visit.template) in PUBLIC


def faults(world: World) -> list[str]:
    """What anybody gets who must not: one line for each."""
    found = []
    nobody, stranger = world.client(), world.client(world.stranger)
    scoped = {scope: world.client(key) for scope, key in world.scoped.items()}
    for visit in visits(world.app):
        if is_public(visit):
            continue
        if unknown := [name for name in visit.parameters if name not in world.owned]:
            found.append(f"{visit}: the test does not know what {unknown[0]} stands for")
            continue
        if (status := send(nobody, world, visit).status_code) != 401:
            found.append(f"{visit}: without a key the answer is {status}")
        for scope, client in scoped.items():
            if scope in (needed(visit), "admin") or needed(visit) is None:
                continue
            if (status := send(client, world, visit).status_code) != 403:
                found.append(f"{visit}: with {scope} alone the answer is {status}")
        answer = send(stranger, world, visit)
        if told := [mark for mark in world.marks if mark in answer.text and mark not in visit.path(world.owned)]:
            found.append(f"{visit}: another project is told {told[0]!r}")
        brings = str(visit) == "PUT /v1/work/blobs/{sha256}"  # a content that one has oneself
        owned = visit.parameters and not brings and not SHARED.fullmatch(visit.template)
        refused = (404, 409) if visit.template.startswith("/v1/work/") else (404,)  # 409: a lease that is not theirs
        if owned and answer.status_code not in refused:
            found.append(f"{visit}: another project is answered {answer.status_code}")
        elif answer.status_code >= 500:
            found.append(f"{visit}: fails with {answer.status_code}")
    return found
