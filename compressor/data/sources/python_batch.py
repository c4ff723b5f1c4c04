"""The "python version" of CIFAR, read without unpickling.

Those files are pickles, and unpickling runs whatever a file says. Only two things in them are of use: one long string
of pixels, and the list of integers behind a known key. Both stand in the stream of pickle operations as plain
arguments, so the stream is scanned and never executed.
"""

from __future__ import annotations

import pickletools
from pathlib import Path

from compressor.errors import DataError
from compressor.storage.packed import read_plain

_TEXT_OPERATIONS = {
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_INTEGER_OPERATIONS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}


def read_python_batch(file: Path, label_key: str) -> tuple[bytes, list[int]]:
    """The pixels, and the labels under ``label_key``. Raises ``DataError`` if the stream is damaged."""
    pixels, labels = b"", []
    in_labels = False
    try:
        for operation, argument, _ in pickletools.genops(read_plain(file)):
            if operation.name in _TEXT_OPERATIONS:
                text = argument.encode("latin-1", "replace") if isinstance(argument, str) else bytes(argument or b"")
                in_labels = text == label_key.encode()
                pixels = max(pixels, text, key=len)
            elif operation.name in _INTEGER_OPERATIONS and in_labels:
                labels.append(int(argument or 0))
            elif operation.name in {"APPENDS", "SETITEM", "SETITEMS"}:
                # A list longer than a thousand is written in several runs, so only another value ends the labels.
                in_labels = in_labels and operation.name == "APPENDS"
    except (ValueError, TypeError, UnicodeError, OSError, OverflowError, MemoryError) as error:
        raise DataError(
            f"'{file}' cannot be read ({next(iter(str(error).splitlines()), '')}); fetch it again."
        ) from error
    return pixels, labels
