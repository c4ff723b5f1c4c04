"""The process of a job: ``python -m compressor.service.worker.child EVENTS WORK LIMITS``.

It limits itself, imports what the work needs, waits for ``go`` on stdin, does what ``job.json`` in its folder says, and
writes what happens as JSON lines to the file descriptor EVENTS: events, and in the end ``{"end": ...}``.

    {"ready": true}                                        everything is imported
    {"time": "2030-01-01T00:00:00.000Z", "event": "StageBegan", "stage": "search"}
    {"end": "done"}
    {"end": "failed", "error": {"kind": "UsageError", "text": "...", "exit_code": 2}}
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from compressor.plugins.importing import import_attribute
from compressor.printable import printable
from compressor.process.failures import explain, is_out_of_memory
from compressor.service.worker.limits import Limits, restrict, shown_bytes

Tell = Callable[[Mapping[str, Any]], None]
"""Tells the worker of an event: ``{"event": kind, ...}``, JSON values."""
Work = Callable[[Mapping[str, Any], Tell], None]
"""Does a job, as ``job.json`` has it, in the current folder."""
_TOO_LARGE = re.compile(r"file too large|os error 27\b", re.IGNORECASE)
_TOO_MANY = re.compile(r"too many open files|os error 24\b", re.IGNORECASE)
MORE = "the job's worker.log has the traceback"


class Pipe:
    """The way to the worker. Lines come whole, whichever thread tells."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()

    def say(self, document: Mapping[str, Any]) -> None:
        """Write a line. Where nobody reads any more, the job is over."""
        line = memoryview(json.dumps(document, ensure_ascii=True, allow_nan=False).encode() + b"\n")
        with self._lock:
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except BrokenPipeError:
                    os._exit(1)

    def tell(self, document: Mapping[str, Any]) -> None:
        """Tell an event, with the time."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.say({"time": time, **document})


def main(arguments: Sequence[str]) -> int:
    """Do a job; returns the exit code."""
    descriptor, name, given = arguments
    limits = Limits.from_json(json.loads(given))
    _end_with_parent()
    restrict(limits)
    os.set_inheritable(int(descriptor), False)
    pipe = Pipe(int(descriptor))
    try:
        work: Any = import_attribute(name, "work")
        pipe.say({"ready": True})
        if sys.stdin.buffer.readline() != b"go\n":
            return 0  # the worker is gone, or has no job
        with open("job.json", encoding="utf-8") as file:
            job = json.load(file)
        work(job, pipe.tell)
    except BaseException as error:
        code, text = explained(error, limits)
        traceback.print_exc()
        with suppress(OSError):  # the pipe of the log was closed; the error is told below
            sys.stderr.flush()
        failure = {"kind": type(error).__name__, "text": printable(text), "exit_code": code}
        pipe.say({"end": "failed", "error": failure})
        return code
    pipe.say({"end": "done"})
    return 0


def explained(error: BaseException, limits: Limits) -> tuple[int, str]:
    """Exit code and line; what a limit did is told as that."""
    for each in _behind(error):
        if _is(each, errno.EFBIG, _TOO_LARGE):
            return 1, f"A file of the job grew beyond the limit of {shown_bytes(limits.file_bytes)} for one file."
        if _is(each, errno.EMFILE, _TOO_MANY):
            return 1, f"The job had more files open at a time than the limit of {limits.open_files}."
        if is_out_of_memory(each):
            return 1, (
                "Out of memory; use a smaller model, input or batch_size. The worker's limit for a job is "
                f"{shown_bytes(limits.memory_bytes)}."
            )
    return explain(error, more=MORE)


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came of."""
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ or here.__context__


def _is(error: BaseException, number: int, words: re.Pattern[str]) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == number
    return bool(words.search(str(error)))


def _end_with_parent() -> None:
    """End when the thread ends that started this process; in a sandbox its first process does so, too."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    with suppress(OSError):  # the pipe of the log was closed; the result counts
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # what libraries do when they are torn down takes a while, and is nobody's concern any more
