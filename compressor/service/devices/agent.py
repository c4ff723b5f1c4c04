"""The agent of a device: asks the server for something to measure, measures it, answers, and asks again.

It needs the runtime, ``lut`` and ``profilers``, and no PyTorch. Only it opens connections, so a device behind a
firewall can be measured on.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.service.devices import protocol
from compressor.service.devices.link import AgentLink, AgentRefusedError, Files, StoppedError
from compressor.service.devices.measurer import Measurer, MeasuringDiedError
from compressor.service.devices.protocol import Request
from compressor.storage.version import VERSION
from lut import Measurement, Target
from profilers.errors import DeviceLostError, ProfilerError, RefusedError

#: Seconds that a long poll waits; how often a measurement is said to go on.
POLL_S, RENEW_S = 10.0, 5.0
#: Seconds that anything but whole networks may take.
SHORT_S = 180.0
_MOST_MISSED = 3
_LONG = (protocol.NETWORKS, protocol.PAIR, protocol.INTERLEAVE)


class Agent:
    """See the module's documentation.

    Args:
        name: the device's.
        link: the way to the server.
        measurer: what measures.
        folder: where files to measure are kept.
        limit_s: seconds that timing whole networks may take.
        say: told what happens, a line each.
    """

    def __init__(
        self,
        name: str,
        link: AgentLink,
        measurer: Measurer,
        folder: Path,
        *,
        limit_s: float = 1800.0,
        poll_s: float = POLL_S,
        renew_s: float = RENEW_S,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name, self.link, self.measurer = name, link, measurer
        self.files = Files(folder)
        self.agent = secrets.token_hex(8)
        self._limit_s, self._poll_s, self._renew_s, self._say = limit_s, poll_s, renew_s, say
        self._target = ""
        self._wanted = True

    def run(self) -> None:
        """Serve until ``link.stop`` is set.

        Raises:
            AgentRefusedError: the server does not want this agent, or the name is another machine's.
            ProfilerError: the runtime does not work here.
        """
        self._target = self.describe().key
        self._say(f"{self.name} measures on {Target.from_key(self._target).label} for {self.link.server}.")
        waits = missed = 0
        try:
            while not self.link.stop.is_set():
                status, document = self.link.post(f"/devices/{self.name}/poll", self._poll(), wait_s=self._poll_s)
                if status in (200, 204):
                    waits = missed = 0
                if status == 200:
                    self._serve(document)
                elif status == 409 and "retry_after" in document:  # another agent may end, and this one take its place
                    waits += 1
                    if waits == 1:
                        self._say(f"{document.get('detail')} Waiting for it to end.")
                    self.link.stop.wait(self._renew_s)
                elif status == 404 and missed < _MOST_MISSED:  # removed in this moment; the next poll registers it anew
                    missed += 1
                    self.link.stop.wait(1.0)
                elif status != 204:
                    raise AgentRefusedError(f"{self.link.server}: {document.get('detail') or f'answer {status}'}")
        except StoppedError:
            pass  # whoever runs it asked for that
        finally:
            self.measurer.close()
            self.link.try_post(f"/devices/{self.name}/poll", {**self._poll(), "leaving": True})

    def describe(self) -> Target:
        """What this agent measures on, found out by measuring the reference. Raises ``ProfilerError``."""
        try:
            with _alone():
                answer = self.measurer.ask(Request(protocol.OPEN), limit_s=SHORT_S)
        except MeasuringDiedError as error:
            raise DeviceLostError(
                f"The runtime {self.measurer.setup.runtime} cannot measure its reference here: {error}."
            ) from error
        failure = protocol.error_of(answer)
        if failure is not None:
            raise failure
        return Target.from_key(answer["target"])

    def _poll(self) -> dict[str, Any]:
        return {"target": self._target, "agent": self.agent, "version": VERSION, "wait_seconds": self._poll_s}

    def _serve(self, leased: dict[str, Any]) -> None:
        """One measurement, from the lease to the answer."""
        held = {"command": leased["id"], "lease": leased["lease"]}
        self._wanted, done = True, threading.Event()

        def renew() -> None:
            while not done.wait(self._renew_s):
                if self._wanted:
                    status, document = self.link.try_post(f"/devices/{self.name}/poll/renew", held)
                    self._wanted = not ((status == 200 and document.get("cancel")) or self.link.stop.is_set())
                if not self._wanted:
                    self.measurer.kill()

        beat = threading.Thread(target=renew, name="renew", daemon=True)
        beat.start()
        try:
            answer = self._answer(leased["request"])
        finally:
            done.set()
            beat.join()
        if self.link.stop.is_set() or not self._wanted:
            return
        status, document = self.link.post(f"/devices/{self.name}/results", {**held, "answer": answer})
        if status not in (204, 409):
            self._say(f"The server does not take the answer: {document.get('detail') or status}.")

    def _answer(self, asked: Any) -> dict[str, Any]:
        try:
            request = Request.from_json(asked)
            self.files.get(list(request.files), self._fetch)
        except StoppedError:
            raise
        except (CompressorError, OSError) as error:
            return protocol.error_json(ProfilerError(f"{self.name}: {error}"))
        limit_s = self._limit_s if request.operation in _LONG else min(SHORT_S, self._limit_s)
        with _alone():
            try:
                return self.measurer.ask(request, limit_s=limit_s)
            except MeasuringDiedError as error:
                return self._blame(request, str(error)) if self._wanted else {}

    def _blame(self, request: Request, how: str) -> dict[str, Any]:
        """What an answer that never came was due to: what was measured, if the reference still is, else the device."""
        self._say(f"{self.name}: the runtime was lost over {request.operation!r}: {how}.")
        try:
            sound = self.measurer.ask(
                Request(protocol.OPEN, request.threads, request.batch, request.reference_ms), limit_s=SHORT_S
            )
        except MeasuringDiedError as error:
            return protocol.error_json(DeviceLostError(f"The device {self.name} does not measure any more: {error}."))
        if protocol.error_of(sound) is not None:
            return sound
        if request.operation == protocol.MEASURE:
            refused = Measurement.refused(f"the runtime was lost: {how}")
            return {**sound, "result": vars(refused)}
        return protocol.error_json(RefusedError(f"The runtime on {self.name} was lost over this: {how}."))

    def _fetch(self, sha256: str, into: Path) -> None:
        self.link.fetch(f"/devices/{self.name}/poll/files/{sha256}", sha256, into)


@contextmanager
def _alone() -> Iterator[None]:
    """Only one agent of a machine measures at a time, whatever names it has."""
    if os.name != "posix":
        yield
        return
    import fcntl

    place = Path(tempfile.gettempdir()) / f"compressor-measuring-{os.getuid()}.lock"
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
