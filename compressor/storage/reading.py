"""Reading what may have been written by anybody: nothing without an end, and nothing that is too large.

Files are looked at before they are read: pipes, devices and folders are refused, and so is what is larger than a file
of its kind can be. JSON has limits on its values, too, because a small text can stand for a large tree; what comes back
has no key twice, no number that is not finite and no text that cannot be written again. ``compressor.storage.codec``
then says whether it is the document that was expected.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from compressor.errors import CompressorError, UsageError

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The most that a JSON document may have: bytes, values, and lists and objects. A value takes up to 60 bytes of
    memory, a list or an object up to 250."""

    bytes: int
    values: int
    containers: int


SMALL = Limits(16 * MEGABYTE, 1_000_000, 200_000)
"""Reports, stages, settings."""
LARGE = Limits(64 * MEGABYTE, 8_000_000, 500_000)
"""Architectures: one number for every index that is kept."""

_DIGITS = 20  # enough for 64 bits and a sign
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(mode: int) -> str | None:
    """What a path is that is no regular file, such as ``"a pipe"``; None for a regular file."""
    return None if stat.S_ISREG(mode) else next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")


@contextmanager
def opened(
    path: str | os.PathLike[str], cure: str, *, limit: int | None = None, kind: type[CompressorError] = UsageError
) -> Iterator[BufferedReader]:
    """A regular file of at most ``limit`` bytes, open for reading.

    Args:
        cure: what to do, the end of every message: "pass a folder that compress wrote".
        kind: the error to raise.
    """
    with os.fdopen(_open(path, cure, limit, kind), "rb") as file:
        yield file


def _open(path: str | os.PathLike[str], cure: str, limit: int | None, kind: type[CompressorError]) -> int:
    try:
        # A pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise kind(f"There is no file {os.fspath(path)}; {cure}.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise kind(f"{os.fspath(path)} cannot be read ({reason}); {cure}.") from error
    status = os.fstat(descriptor)
    found = kind_of(status.st_mode)
    if found is None and (limit is None or status.st_size <= limit):
        return descriptor
    os.close(descriptor)
    if found is not None:
        raise kind(f"{os.fspath(path)} is {found}, no file; {cure}.")
    raise kind(f"{os.fspath(path)} has {size_text(status.st_size)}, more than {size_text(limit or 0)}; {cure}.")


def require_file(
    path: str | os.PathLike[str], cure: str, *, limit: int | None = None, kind: type[CompressorError] = UsageError
) -> int:
    """Refuse what ``opened`` refuses, for libraries that open files themselves; returns its bytes."""
    with opened(path, cure, limit=limit, kind=kind) as file:
        return os.fstat(file.fileno()).st_size


def read_bytes(
    path: str | os.PathLike[str], cure: str, *, limit: int, kind: type[CompressorError] = UsageError
) -> bytes:
    """All of a regular file of at most ``limit`` bytes."""
    with opened(path, cure, limit=limit, kind=kind) as file:
        try:
            data = file.read(limit + 1)  # some files do not say how large they are
        except OSError as error:
            raise kind(f"{path} cannot be read ({error.strerror}); {cure}.") from error
    if len(data) > limit:
        raise kind(f"{path} has more than {size_text(limit)}; {cure}.")
    return data


def sha256(path: str | os.PathLike[str], cure: str = "delete it") -> str:
    """The SHA-256 of a regular file, as hexadecimal digits."""
    with opened(path, cure) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(
    path: str | os.PathLike[str],
    cure: str,
    *,
    limits: Limits = SMALL,
    allow_nan: bool = False,
    kind: type[CompressorError] = UsageError,
) -> Any:
    """The JSON document in a file.

    Args:
        allow_nan: let NaN and infinity through, in files that only this program reads.

    Raises:
        UsageError: or ``kind``; one line with the path, what is wrong and ``cure``.
    """
    data = read_bytes(path, cure, limit=limits.bytes, kind=kind)
    try:
        return parse_json(data, limits=limits, allow_nan=allow_nan)
    except ValueError as error:
        raise kind(f"{path} is damaged: {error}; {cure}.") from error


def parse_json(data: bytes, *, limits: Limits = SMALL, allow_nan: bool = False) -> Any:
    """The document in ``data``. Raises ``ValueError`` that says what is wrong with it."""
    for name, most, found in (
        ("bytes", limits.bytes, len(data)),
        ("values", limits.values, data.count(b",")),
        ("keys", limits.containers * 2, data.count(b":")),
        ("lists and objects", limits.containers, data.count(b"[") + data.count(b"{")),
    ):
        if found > most:
            raise ValueError(f"it has {found:,} {name}, and {most:,} are the most")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text (byte {error.start})") from error
    if text.startswith("\ufeff"):
        raise ValueError("it starts with a byte order mark, which is no JSON")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_number,
            parse_constant=float if allow_nan else _constant,
        )
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    if _SURROGATE.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("it holds half of a surrogate pair, which is no text") from None
    return value


_OBJECT = re.compile(r"\s*<[\w.]+ object at 0x[0-9a-fA-F]+>")
"""What Python calls an object without a name; where it lies in memory helps nobody."""


@contextmanager
def parsing(
    path: str | os.PathLike[str], what: str, cure: str, *, kind: type[CompressorError] = UsageError
) -> Iterator[None]:
    """Around the reader of another library: whatever it raises over a file becomes one line.

    Args:
        what: what the file should have been, "readable image".
    """
    try:
        yield
    except CompressorError:
        raise
    except Exception as error:  # readers of foreign formats raise whatever their code runs into
        reason = _OBJECT.sub("", next(iter(str(error).splitlines()), "")).strip() or type(error).__name__
        raise kind(f"'{path}' is no {what} ({reason[:200]}); {cure}.") from error


def size_text(count: float) -> str:
    """``"12 bytes"``, ``"1.5 GB"``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def free_memory() -> float | None:
    """Bytes that can still be had; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next((1024 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)
    except (OSError, ValueError):
        return None


def require_memory_for(
    path: str | os.PathLike[str], needed: float, cure: str, *, kind: type[CompressorError] = UsageError
) -> None:
    """Refuse a file whose content would not fit into memory."""
    free = free_memory()
    if free is not None and needed > free:
        raise kind(f"{path} takes {size_text(needed)} of memory, and {size_text(free)} are free; {cure}.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands there twice")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
