"""What an error amounts to for whoever asked for the work: an exit code and one line.

The command line and the workers of the service tell errors alike because both ask here.
"""

from __future__ import annotations

import errno
import re

#: What PyTorch says where a process gets no more memory.
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|DefaultCPUAllocator", re.IGNORECASE)


def explain(error: BaseException, *, more: str = "run again with --debug for the traceback") -> tuple[int, str]:
    """Exit code and one line for an error. Errors raised on purpose carry both.

    Args:
        more: where more is said of an error that nobody expected.
    """
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code, one_line(str(error))
    if is_out_of_memory(error):
        return 1, "Out of memory; use a smaller model, input or --batch-size."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return 1, f"No space left on the disk ({error.filename or 'while writing'}); free some, then run this again."
    if isinstance(error, OSError) and error.filename is not None:
        name = str(error.filename)
        shown = name if len(name) <= 80 else f"{name[:60]}... ({len(name)} characters)"
        return 2, f"{shown!r} cannot be used: {error.strerror}; name another file or folder."
    if not isinstance(error, Exception):
        text = f"{type(error).__name__}({one_line(str(error))})"
        return 1, f"The code of the model or of the data ended the program with {text}; it must return instead."
    return 1, f"Unexpected {type(error).__name__}: {one_line(str(error))} ({more})"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a process got no more memory: Python says so in an error of its own, PyTorch in words."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


def one_line(text: str) -> str:
    """The text without line breaks and runs of spaces."""
    return " ".join(text.split())
