"""The chores of a server, in threads of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from compressor.errors import CompressorError
from compressor.service.services import Services

_SWEEP_S = 3600.0
_FIRST_SWEEP_S = 5.0
_LOG = logging.getLogger("compressor.service")


class Keeper:
    """Expires leases every few seconds, and sweeps every hour; it survives a database that is away.

    ``with Keeper(services): ...``
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._every = max(0.05, min(5.0, services.settings.lease_seconds / 5))
        self._last = services.clock.monotonic()
        self._stop = threading.Event()
        first = min(_FIRST_SWEEP_S, self._every)
        # A sweep may take long, where contents lie far away, and leases run out meanwhile.
        self._threads = [
            threading.Thread(target=self._run, args=arguments, name=f"keeper-{name}", daemon=True)
            for name, arguments in (
                ("leases", (self._expire, self._every, self._every)),
                ("sweep", (self._sweep, first, _SWEEP_S)),
            )
        ]

    def __enter__(self) -> Keeper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[0].join()
        self._threads[1].join(timeout=10)  # what it has begun may be left undone

    def _run(self, chore: Callable[[], None], first: float, every: float) -> None:
        wait = first
        while not self._stop.wait(wait):
            wait = every
            try:
                chore()
            except CompressorError as error:
                _LOG.warning("%s", error)
                wait = min(every, 60.0)
            except Exception:
                _LOG.exception("the keeper goes on after a mistake of the program")

    def _expire(self) -> None:
        leases, moment = self._services.leases, self._services.clock.monotonic()
        if moment - self._last > self._every + self._services.settings.lease_seconds / 2:
            leases.forget()  # the server itself stood still, and heard no renewals
        self._last = moment
        for job in leases.expire():
            _LOG.warning("job %s: worker %s was silent; it is %s", job.id, job.worker, job.state)

    def _sweep(self) -> None:
        _LOG.info("swept: %s", self._services.retention.sweep())
