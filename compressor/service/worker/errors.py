"""What can go wrong between a worker and its server, and what stops a job from outside."""

from __future__ import annotations

from compressor.errors import CompressorError


class ServerAwayError(CompressorError):
    """The server does not answer, or not now; the same request may work later.

    Attributes:
        retry_after: seconds that the server asks for, if it does.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LeaseLostError(CompressorError):
    """The job is no longer this worker's: its lease ran out, or the job is gone. Nothing may be written for it."""


class RequestRefusedError(CompressorError):
    """The server will not do it, however often it is asked. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_about_the_key(self) -> bool:
        """Whether the key is what is wrong, so that no other request can work either."""
        return self.status in (401, 403)


class LimitError(CompressorError):
    """A job went past a limit of the worker; says which one and its value."""


class SandboxError(CompressorError):
    """Jobs cannot be kept apart here as was asked for; says why."""

    exit_code = 2


class StoppedError(CompressorError):
    """The worker is to stop, and what was being tried has not worked so far."""
