"""Errors as an exit code and one line."""

from __future__ import annotations

import errno

import pytest

from compressor.errors import UnreachableBudgetError, UsageError
from compressor.process.failures import explain, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("no\n  such thing"), 2, "no such thing"),
        (UnreachableBudgetError("far"), 3, "far"),
        (MemoryError(), 1, "Out of memory; use a smaller model, input or --batch-size."),
        (RuntimeError("CUDA out of memory."), 1, "Out of memory; use a smaller model, input or --batch-size."),
        (OSError(errno.ENOSPC, "full", "/a"), 1, "No space left on the disk (/a); free some, then run this again."),
        (
            FileNotFoundError(errno.ENOENT, "missing", "/a"),
            2,
            "'/a' cannot be used: missing; name another file or folder.",
        ),
        (RuntimeError("what"), 1, "Unexpected RuntimeError: what (look there)"),
        (
            SystemExit(3),
            1,
            "The code of the model or of the data ended the program with SystemExit(3); it must return instead.",
        ),
    ],
)
def test_errors(error: BaseException, code: int, text: str) -> None:
    assert explain(error, more="look there") == (code, text)


def test_memory_is_told_from_other_errors() -> None:
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("out of memory"))
