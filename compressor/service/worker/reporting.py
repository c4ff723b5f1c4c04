"""Keeps the lease of a job and hands over its events, in a thread, for as long as the server gives the lease back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from compressor.errors import CompressorError
from compressor.service.worker.errors import LeaseLostError, RequestRefusedError, ServerAwayError
from compressor.service.worker.link import Claimed, Link
from compressor.service.worker.outbox import Outbox, Progress

_BATCH_SECONDS = 0.5
_LONGEST_PAUSE = 5.0
_CANCEL_SECONDS = 3.0
"""The answer to a renewal says whether the job is to be cancelled, so that there is one as often as this."""


class Reporting:
    """The heartbeat of a job.

    Attributes:
        progress: where the job is; whoever hears its events keeps it.
        waiting_for: asked for what the job waits for, in a line.
        cancel: set when the server wants the job ended.
        lost: set when the lease is another's.
        refused: what the server said when it did not take the key any more.
    """

    def __init__(self, claimed: Claimed, link: Link, outbox: Outbox, say: Callable[[str], None]) -> None:
        self._claimed, self._link, self._outbox, self._say = claimed, link, outbox, say
        self.progress = Progress()
        self.waiting_for: Callable[[], str | None] = lambda: None
        self.cancel, self.lost = threading.Event(), threading.Event()
        self.refused: RequestRefusedError | None = None
        self._why = ""
        self._every = min(claimed.lease_seconds / 3, _CANCEL_SECONDS)
        self._due = time.monotonic() + self._every
        self._closed, self._hurry, self._handed_over = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease of a job", daemon=True)

    def begin(self) -> None:
        """Begin to renew the lease."""
        self._thread.start()

    def close(self) -> None:
        """Renew it no more."""
        self._closed.set()
        self._hurry.set()
        self._thread.join(timeout=60)

    def require_lease(self) -> None:
        """Raise ``LeaseLostError`` if the job is no longer this worker's."""
        if self.lost.is_set():
            raise LeaseLostError(self._why)

    def flush(self, *, within: float | None = None, check: Callable[[], None] = lambda: None) -> None:
        """Return when all events are handed over, the lease is lost, or ``within`` seconds are over. ``check`` may
        raise to give it up."""
        end = None if within is None else time.monotonic() + within
        while len(self._outbox) and not self.lost.is_set() and not self._closed.is_set():
            check()
            if end is not None and time.monotonic() > end:
                return
            self._handed_over.clear()
            self._hurry.set()
            if len(self._outbox):
                self._handed_over.wait(0.2)

    def _beat(self) -> None:
        pause, away = 0.3, False
        while not self._closed.is_set():
            if away:
                self._closed.wait(pause)
            else:
                self._hurry.wait(_BATCH_SECONDS)
            self._hurry.clear()
            if self._closed.is_set():
                return
            try:
                self._exchange()
            except ServerAwayError as error:
                if not away:
                    self._say(f"The server does not answer ({error}); the job runs on.")
                away, pause = True, min(pause * random.uniform(1.5, 2.0), _LONGEST_PAUSE, max(self._every / 2, 0.1))
            except CompressorError as error:
                if isinstance(error, RequestRefusedError) and error.is_about_the_key:
                    self.refused = error
                self._why = str(error)
                self.lost.set()
                self._handed_over.set()
                return
            else:
                if away:
                    self._say("The server answers again.")
                pause, away = 0.3, False

    def _exchange(self) -> None:
        """Hand over what there is, and renew the lease when it is time."""
        while events := self._outbox.first():
            try:
                self._link.events(self._claimed.id, self._claimed.token, events)
            except RequestRefusedError as error:
                if error.is_about_the_key:
                    raise
                self._say(f"{len(events)} events are left out, as the server does not take them ({error}).")
            self._outbox.sent(events[-1]["number"])
            self._handed_over.set()
            if time.monotonic() >= self._due or self._closed.is_set():
                break
        if time.monotonic() >= self._due:
            self._renew()
            self._due = time.monotonic() + self._every

    def _renew(self) -> None:
        progress = self.progress
        cancel = self._link.renew(
            self._claimed.id,
            self._claimed.token,
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            waiting_for=self.waiting_for(),
        )
        if cancel:
            self.cancel.set()
