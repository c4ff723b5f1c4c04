"""Errors raised on purpose while measuring. ``exit_code`` is what a command line should exit with."""

from __future__ import annotations


class ProfilerError(Exception):
    """Something could not be measured; the message says what and what to do."""

    exit_code = 1


class ProfilerUsageError(ProfilerError, ValueError):
    """An unknown target, an option out of range, a file of the wrong kind."""

    exit_code = 2


class TargetUnavailableError(ProfilerError):
    """The target exists but cannot be used on this machine: a package or a device is missing."""

    exit_code = 2


class RefusedError(ProfilerError):
    """The runtime refuses the network or one of its operators."""

    exit_code = 4


class DeviceLostError(ProfilerError):
    """The device stopped answering in the middle of a measurement."""
