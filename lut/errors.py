"""Errors of the latency table. Each message is one line: what was found, what was expected, what to do next."""

from __future__ import annotations


class LutError(Exception):
    """Base class; the command line exits with ``exit_code``."""

    exit_code = 1


class InvalidKeyError(LutError, ValueError):
    """A key, measurement or shared file holds a value that cannot be used."""

    exit_code = 2


class UnknownTargetError(LutError, LookupError):
    """The table has no rows for this device, runtime, version, precision, threads and batch."""

    exit_code = 2


class TableVersionError(LutError):
    """The table was written by a newer version of this program."""

    exit_code = 2


class NotATableError(LutError):
    """The path names a file that is no latency table."""

    exit_code = 2


class CorruptTableError(LutError):
    """The table is damaged and could not be set aside (it was opened for reading only)."""


class TableBusyError(LutError):
    """Another process kept the table locked for longer than the time-out."""


class DiskFullError(LutError):
    """No space is left for the table; everything written before stays readable."""


class TableAccessError(LutError):
    """The table cannot be opened, read or written: permissions, a missing folder, a failing disk."""


class MissingPackageError(LutError):
    """An optional package is needed; the message says how to install it."""

    exit_code = 2
