"""The chores of a server, in a thread of their own."""

from __future__ import annotations

import logging
import threading

from compressor.errors import CompressorError
from compressor.service.services import Services

_SWEEP_S = 3600.0
_LOG = logging.getLogger("compressor.service")


class Keeper:
    """Expires leases every few seconds, and sweeps every hour; it survives a database that is away.

    ``with Keeper(services): ...``
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._every = max(0.05, min(5.0, services.settings.lease_seconds / 5))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        clock, leases = self._services.clock, self._services.leases
        last, swept = clock.monotonic(), float("-inf")
        while not self._stop.wait(self._every):
            moment = clock.monotonic()
            if moment - last > self._every + self._services.settings.lease_seconds / 2:
                leases.forget()  # the server itself stood still, and heard no renewals
            try:
                for job in leases.expire():
                    _LOG.warning("job %s: worker %s was silent; it is %s", job.id, job.worker, job.state)
                if moment - swept >= _SWEEP_S:
                    swept = moment
                    removed = self._services.retention.sweep()
                    _LOG.info("swept: %s", removed)
            except CompressorError as error:
                _LOG.warning("%s", error)
            except Exception:
                _LOG.exception("the keeper goes on after a mistake of the program")
            last = clock.monotonic()
