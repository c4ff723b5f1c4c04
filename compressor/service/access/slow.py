"""Connections that never get to the end of their headers are closed; uvicorn itself would keep them for ever."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the headers of a request must be there.
HEADER_SECONDS = 20.0


def patient_protocol(seconds: float = HEADER_SECONDS) -> type[H11Protocol]:
    """The protocol for ``uvicorn.Config(http=...)``: HTTP as uvicorn speaks it, with patience for headers that ends.

    Args:
        seconds: How long a request's headers may take, from the opening of the connection or their first byte on.
    """

    class PatientProtocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
                self._wait()
            else:
                self._stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._waiting is None:
                self._waiting = self.loop.call_later(seconds, self._give_up)

        def _stop(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._waiting = None
            if not self.transport.is_closing():
                self.transport.close()

    return PatientProtocol
