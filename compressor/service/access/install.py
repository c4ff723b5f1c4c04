"""Puts the guard around an app."""

from __future__ import annotations

from fastapi import FastAPI

from compressor.service.access import api, login
from compressor.service.access.access import Access
from compressor.service.access.bodies import PATIENCE
from compressor.service.access.guard import Guard
from compressor.service.services import Services


def install(app: FastAPI, services: Services, *, patience: float = PATIENCE) -> Access:
    """Let nobody in but whom keys, sessions, a trusted proxy or this machine vouch for.

    Called last when the app is made: the guard must be the outermost middleware.

    Args:
        app: The app; gets ``app.state.access``, and the routes to log in and to read the audit log.
        services: The parts of the server: its database, settings and clock.
        patience: Seconds in which something of a request's body must come.
    """
    access = Access(services.database, services.settings, services.clock)
    app.state.access = access
    app.include_router(login.router)
    app.include_router(api.router)
    app.add_middleware(Guard, access=access, patience=patience)
    return access
