"""What can go wrong between a client and its service, each with the exit class that the command line has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.errors import (
    CompressorError,
    UnreachableBudgetError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from compressor.service import errors as service
from compressor.service.errors import ServiceError

_BY_EXIT_CODE: dict[int, type[CompressorError]] = {
    2: UsageError,
    3: UnreachableBudgetError,
    4: UnsupportedModelError,
    5: VerificationError,
}
_BY_STATUS: dict[int, type[ServiceError]] = {
    kind.status: kind
    for kind in (
        service.UnauthorizedError,
        service.ForbiddenError,
        service.NotFoundError,
        service.ConflictError,
        service.TooLargeError,
        service.RefusedError,
        service.TooManyError,
    )
}
_NOBODYS_MISTAKE = (409, 429)
"""Statuses of requests that are right in themselves, and do not fit now."""


class ServerAwayError(CompressorError):
    """No answer came: nothing listens there, the connection broke, or the service cannot reach its database."""


class JobCancelledError(CompressorError):
    """The job that was waited for was cancelled."""

    exit_code = 130


def refusal(status: int, problem: Mapping[str, Any], where: str) -> CompressorError:
    """The error that a problem document (RFC 9457) is, of the class that the service raised.

    Args:
        where: the address that was asked, for what the document does not say.
    """
    text = str(problem.get("detail") or problem.get("title") or f"{where} answers with status {status}.").strip()
    code = problem.get("exit_code")
    if status == 422 and isinstance(code, int) and code in _BY_EXIT_CODE:
        return _BY_EXIT_CODE[code](text)
    if status == 401:
        text = f"{where} refuses the key: {text.rstrip('.')}. Pass one that was made there in COMPRESSOR_KEY or a file."
    error = _BY_STATUS.get(status, ServiceError)(text)
    error.status = status
    error.exit_code = 2 if 400 <= status < 500 and status not in _NOBODYS_MISTAKE else 1
    return error


def job_error(job: Mapping[str, Any]) -> CompressorError | None:
    """The error that a job ended with, of the class that it had where it ran; None for one that is done."""
    name = f"Job {job.get('id')}"
    if job.get("state") == "cancelled":
        return JobCancelledError(f"{name} was cancelled.")
    if job.get("state") != "failed":
        return None
    said = job.get("error")
    said = said if isinstance(said, Mapping) else {}
    kind = _BY_EXIT_CODE.get(said.get("exit_code", 1), CompressorError)
    return kind(f"{name} failed: {said.get('text') or 'the service does not say why.'}")
