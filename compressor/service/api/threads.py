"""Blocking work of coroutines, in threads whose number is bounded: what waits for a turn waits without a thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.requests import Request

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 10
"""Threads for short work: at most so many transactions at once, fewer than the database has connections."""
BODIES = 4
"""Threads that may wait for the network: contents that workers send."""


async def in_thread(function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Call a function that may block, for instance for the database."""
    return await anyio.to_thread.run_sync(partial(function, *args, **named))


async def in_body_thread(request: Request, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Call a function that reads the body of a request, with ``Body``."""
    limiter: CapacityLimiter = request.app.state.body_threads
    return await anyio.to_thread.run_sync(partial(function, *args, **named), limiter=limiter)
