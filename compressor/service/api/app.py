"""The app: every route, what is around them, and what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
from fastapi import FastAPI

from compressor.service.access.install import install
from compressor.service.api import (
    blobs,
    events,
    files,
    health,
    inspect,
    jobs,
    metrics,
    names,
    uploads,
    work,
)
from compressor.service.api.around import Around
from compressor.service.api.describing import DescribedApp
from compressor.service.api.frames import Frames
from compressor.service.api.heads import Heads
from compressor.service.api.model_names import ModelNames
from compressor.service.api.problems import install_handlers
from compressor.service.api.threads import BODIES, THREADS
from compressor.service.api.watchers import Closing, Watchers
from compressor.service.devices import api as devices
from compressor.service.inspecting.inspector import Inspector
from compressor.service.inspecting.processes import fetch_from, inspect_apart
from compressor.service.page import routes as page
from compressor.service.page.browsers import Browsers
from compressor.service.services import Services
from compressor.storage.version import VERSION

_ABOUT = (
    "Jobs, devices and results of the compressor. Everything is JSON below `/v1`; errors are problem documents "
    "(RFC 9457) whose `exit_code` is the class that the command line has: 2 usage, 3 budget unreachable, 4 model not "
    "supported, 5 verification failed. Keys go as `Authorization: Bearer KEY`."
)


def create_app(services: Services) -> FastAPI:
    """The app over the parts of a server.

    ``app.state`` has ``services``, ``watchers``, ``closing`` (set it to end streams and long polls), ``metrics``,
    ``names``, ``inspector`` and ``access``.
    """
    app = DescribedApp(
        title="compressor",
        version=VERSION,
        description=_ABOUT,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.services = services
    app.state.watchers = Watchers()
    app.state.frames = Frames(services)
    app.state.closing = Closing(services.bell)
    app.state.names = ModelNames(services.settings.data_dir / "models.json")
    look = partial(inspect_apart, fetch=fetch_from(services.blobs), datasets=services.settings.datasets)
    app.state.inspector = Inspector(look)
    app.state.metrics = metrics.Metrics(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(health.router, prefix="/v1", include_in_schema=False)
    for each in (jobs, events, files, uploads, names, inspect, blobs, work, devices):
        app.include_router(each.router, prefix="/v1")
    app.include_router(page.router)
    install_handlers(app)
    app.add_middleware(Heads)  # inside of the guard, which knows HEAD as it is
    install(app, services)
    app.add_middleware(Browsers)  # outside of the guard, so that what it refuses is a page, too
    app.add_middleware(Around)  # outside of the guard, so that what it refuses is logged, too
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    app.state.body_threads = anyio.CapacityLimiter(BODIES)
    try:
        yield
    finally:
        app.state.closing.set()
