"""The worker's end of the HTTP contract. One request is one call; who calls decides whether to try again."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compressor.errors import MissingDependencyError
from compressor.printable import printable
from compressor.service.records import FileRecord
from compressor.service.worker.errors import LeaseLostError, RequestRefusedError, ServerAwayError, StoppedError

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")
_PIECE = 1 << 20
_LATER = (408, 425, 429)
_LONGEST_WAIT = 10.0
_LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class ClaimedUpload:
    """A file that a recipe names; ``kind`` is weights, arrays or images."""

    id: str
    name: str
    kind: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Claimed:
    """A job that the server gave to this worker; see ``compressor.service.records.Claim``."""

    id: str
    kind: str
    recipe: Mapping[str, Any]
    attempt: int
    token: str = field(repr=False)
    lease_seconds: float
    files: tuple[FileRecord, ...] = ()
    uploads: tuple[ClaimedUpload, ...] = ()
    parent: str | None = None
    parent_files: tuple[FileRecord, ...] = ()


class Link:
    """Speaks to the server, from any thread.

    Every method raises ``ServerAwayError`` if there is no answer, or one that means later; ``LeaseLostError`` if the
    token is no longer the job's; ``RequestRefusedError`` for anything else that is no success.

    Args:
        timeout: seconds to wait for an answer.
    """

    def __init__(self, server: str, key: str | None, *, timeout: float = 30.0, version: str = "") -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError(
                "A worker needs httpx, which is not installed: pip install 'compressor[client]'."
            ) from error
        headers = {"User-Agent": f"compressor-worker/{version}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._errors: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)
        self.client: httpx.Client = httpx.Client(
            base_url=server.rstrip("/"),
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=10.0),
            limits=httpx.Limits(max_connections=16, keepalive_expiry=20.0),
        )

    def close(self) -> None:
        """Close its connections."""
        self.client.close()

    def claim(self, worker: str, labels: Sequence[str], version: str, wait_seconds: float) -> Claimed | None:
        """A job, or None if there is none within ``wait_seconds``."""
        body = {"worker": worker, "labels": list(labels), "version": version, "wait_seconds": wait_seconds}
        answer = self._post("/v1/work/claim", body, timeout=wait_seconds + 30)
        return None if answer.status_code == 204 else _claimed(answer.json())

    def renew(
        self,
        job: str,
        token: str,
        *,
        stage: str | None = None,
        done: int | None = None,
        total: int | None = None,
        waiting_for: str | None = None,
    ) -> bool:
        """Keep the lease; returns whether the job is to be cancelled."""
        body = {"token": token, "stage": stage, "done": done, "total": total, "waiting_for": waiting_for}
        return bool(self._post(f"/v1/work/{job}/renew", body, lease=True).json().get("cancel"))

    def events(self, job: str, token: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Hand over events. The same ones again do no harm."""
        self._post(f"/v1/work/{job}/events", {"token": token, "events": list(events)}, lease=True)

    def snapshot(self, job: str, token: str, files: Sequence[FileRecord]) -> list[str]:
        """Make ``files`` the job's folder; returns contents that the server has not, then nothing changed."""
        listed = [{"path": each.path, "sha256": each.sha256, "bytes": each.bytes} for each in files]
        answer = self._request("POST", f"/v1/work/{job}/snapshot", json={"token": token, "files": listed})
        if answer.status_code == 409 and (missing := _problem(answer).get("missing")):
            return [str(each) for each in missing]
        self._checked(answer, lease=True)
        return []

    def end(self, job: str, token: str, state: str, error: Mapping[str, Any] | None = None) -> None:
        """The job is done, failed or cancelled."""
        self._post(f"/v1/work/{job}/end", {"token": token, "state": state, "error": error}, lease=True)

    def release(self, job: str, token: str) -> None:
        """Give the job back, to go on elsewhere."""
        self._post(f"/v1/work/{job}/release", {"token": token}, lease=True)

    def put_blob(self, sha256: str, path: Path, size: int) -> None:
        """Send a content; the file must have ``size`` bytes."""
        with path.open("rb") as file:
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            pieces = _pieces(file.fileno(), size)
            self._checked(self._request("PUT", f"/v1/work/blobs/{sha256}", content=pieces, headers=headers, timeout=60))

    def get_blob(self, sha256: str, path: Path, size: int, token: str) -> None:
        """Fetch a content that a leased job has into a new file. One that its hash does not fit is not kept, and counts
        as no answer."""
        headers = {"X-Lease-Token": token}
        digest, count = hashlib.sha256(), 0
        try:
            with self.client.stream("GET", f"/v1/work/blobs/{sha256}", headers=headers, timeout=60) as answer:
                if not answer.is_success:
                    answer.read()
                self._checked(answer)
                with path.open("xb") as file:
                    for piece in answer.iter_bytes(_PIECE):
                        count += len(piece)
                        if count > size:
                            break
                        digest.update(piece)
                        file.write(piece)
        except self._errors as error:
            path.unlink(missing_ok=True)
            raise _away(error) from error
        if count != size or digest.hexdigest() != sha256:
            path.unlink(missing_ok=True)
            raise ServerAwayError(f"The server sent something else for {sha256[:12]}.")

    def _post(
        self, path: str, body: Mapping[str, Any], *, lease: bool = False, timeout: float | None = None
    ) -> httpx.Response:
        more = {} if timeout is None else {"timeout": timeout}
        return self._checked(self._request("POST", path, json=body, **more), lease=lease)

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self.client.request(method, path, **more)
        except self._errors as error:
            raise _away(error) from error

    def _checked(self, answer: httpx.Response, *, lease: bool = False) -> httpx.Response:
        status = answer.status_code
        if answer.is_success:
            return answer
        problem = _problem(answer)
        said = printable(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        if lease and status in (404, 409, 410):
            raise LeaseLostError(said)
        if status >= 500 or status in _LATER:
            raise ServerAwayError(said, _seconds(answer.headers.get("Retry-After")))
        raise RequestRefusedError(said, status)


class Patience:
    """Tries again while the server is away, less and less often.

    Args:
        check: called before every try and while waiting; raises to give it up.
        say: told once when the server goes away, and when it is back.
    """

    def __init__(self, check: Callable[[], None], say: Callable[[str], None]) -> None:
        self._check, self._say = check, say

    def __call__(self, call: Callable[[], _T], *, within: float | None = None) -> _T:
        """What ``call`` gives.

        Args:
            within: seconds after which it is given up; None: never.

        Raises:
            StoppedError: it did not work in time. Others are those of ``check``, and of ``call`` but for
                ``ServerAwayError``.
        """
        wait, said = 0.2, False
        end = None if within is None else time.monotonic() + within
        while True:
            self._check()
            try:
                found = call()
            except ServerAwayError as error:
                if not said and wait > 1:
                    self._say(f"The server does not answer ({error}); trying again.")
                    said = True
                pause = max(wait * random.uniform(0.7, 1.3), min(error.retry_after or 0.0, _LONGEST_WAIT))
                again = time.monotonic() + pause
                if end is not None and again > end:
                    raise StoppedError(str(error)) from error
                while (left := again - time.monotonic()) > 0:
                    self._check()
                    time.sleep(min(left, _LOOK_SECONDS))
                wait = min(wait * 1.7, _LONGEST_WAIT)
            else:
                if said:
                    self._say("The server answers again.")
                return found


def _claimed(document: Mapping[str, Any]) -> Claimed:
    """What a claim was answered with. Raises ``ServerAwayError`` if it makes no sense."""
    try:
        job = document["job"]
        uploads = tuple(
            ClaimedUpload(str(u["id"]), str(u["name"]), str(u["kind"]), str(u["sha256"]), int(u["bytes"]))
            for u in document.get("uploads") or ()
        )
        return Claimed(
            id=str(job["id"]),
            kind=str(job["kind"]),
            recipe=dict(job["recipe"]),
            attempt=int(job.get("attempt") or 1),
            token=str(document["token"]),
            lease_seconds=float(document["lease_seconds"]),
            files=_files(document.get("files")),
            uploads=uploads,
            parent=job.get("parent"),
            parent_files=_files(document.get("parent_files")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ServerAwayError(f"The server's answer makes no sense ({type(error).__name__}: {error}).") from error


def _files(listed: Any) -> tuple[FileRecord, ...]:
    return tuple(FileRecord(str(f["path"]), str(f["sha256"]), int(f["bytes"])) for f in listed or ())


def _pieces(descriptor: int, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a file, which another process may be writing to. Raises ``ServerAwayError`` if it has
    fewer by now."""
    offset = 0
    while offset < size:
        piece = os.pread(descriptor, min(_PIECE, size - offset), offset)
        if not piece:
            raise ServerAwayError("A file became shorter while it was sent.")
        offset += len(piece)
        yield piece


def _problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer; empty if it has none."""
    try:
        found = answer.json()
    except (ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


def _away(error: Exception) -> ServerAwayError:
    return ServerAwayError(printable(" ".join(str(error).split()) or type(error).__name__))


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
