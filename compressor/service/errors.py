"""What the service refuses, each with the HTTP status that says so."""

from __future__ import annotations

from compressor.errors import CompressorError, UsageError


class ServiceError(CompressorError):
    """Base class: a request that the service does not do.

    Attributes:
        status: the HTTP status of the answer.
        retry_after: seconds after which the same request may work; None where it will not by itself.
    """

    status = 500
    retry_after: int | None = None


class RefusedError(ServiceError):
    """What was sent cannot be used: an upload that is not what it says, a malformed value."""

    status = 422
    exit_code = 2


class UnauthorizedError(ServiceError):
    """No key, or one that is not known, or no longer."""

    status = 401


class ForbiddenError(ServiceError):
    """A key that may not do this."""

    status = 403


class NotFoundError(ServiceError):
    """There is none, or it is another project's, which nobody is told."""

    status = 404


class ConflictError(ServiceError):
    """What is asked for does not fit the state that things are in."""

    status = 409


class StaleLeaseError(ConflictError):
    """A worker's lease is no longer the job's: it ran out, or the job was given to another. Nothing was written."""


class OffsetError(ConflictError):
    """A chunk of an upload that does not begin where the last one ended.

    Attributes:
        offset: bytes that are there, where the next chunk begins.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class TooLargeError(ServiceError):
    """More bytes than one file may have."""

    status = 413


class TooManyError(ServiceError):
    """The project's queue is full."""

    status = 429
    retry_after = 30


class DatabaseAwayError(ServiceError):
    """The database does not answer; it is tried again with every request."""

    status = 503
    retry_after = 2


class QuotaError(ServiceError):
    """The project has stored as much as it may."""

    status = 507


class StorageFullError(ServiceError):
    """The disk, or the bucket, takes no more. What was being written is gone, what was there before is whole."""

    status = 507


class StorageError(ServiceError):
    """Artefacts cannot be read or written for another reason; says which."""

    status = 503
    retry_after = 5


class NewerDatabaseError(UsageError):
    """The database was written by a newer version of this program."""
