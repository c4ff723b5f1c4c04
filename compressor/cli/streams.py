"""Standard streams that may be closed, full, or unable to say everything."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import IO, Any

import click

from compressor.errors import CompressorError
from compressor.printable import printable


class StdoutError(CompressorError):
    """The result cannot be handed over: stdout is closed or full."""


def prepare() -> None:
    """Occupy closed descriptors, so that no file of ours gets their numbers; print in any encoding."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (for as long as the process lives)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """A line on stderr; nothing if it cannot be written, as a message must not end a job."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop(sys.stderr)


def result(text: str) -> None:
    """The result on stdout. Raises ``StdoutError``, or ``OSError`` if its reader has gone."""
    if sys.stdout is None:
        raise StdoutError("The result cannot be written: stdout is closed.")
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise _failed(error) from error


def flush() -> None:
    """Hand over what was written. Raises as ``result``."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise _failed(error) from error


def drop(stream: IO[Any] | None) -> None:
    """Let everything that is still to be written to a stream vanish: it would fail again when Python ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]


def _failed(error: Exception) -> StdoutError:
    drop(sys.stdout)
    reason = getattr(error, "strerror", None) or str(error)
    return StdoutError(printable(f"The result cannot be written to stdout: {reason}."))
