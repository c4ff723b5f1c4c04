"""Every error the program raises on purpose.

Each message says what was found, what was expected, and what to do next, in one line. The command line prints the
message alone and exits with ``exit_code``; a traceback appears only under ``--debug``.
"""

from __future__ import annotations

from compressor.printable import printable


class CompressorError(Exception):
    """Base class of all errors raised on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """The message, in which names from files and from other people's code can do a terminal no harm."""
        return printable(super().__str__())


class UsageError(CompressorError, ValueError):
    """What the user passed cannot be used: an unknown name, a malformed budget, a missing file."""

    exit_code = 2


class DataError(UsageError):
    """A data set is missing, has the wrong shapes, or holds unusable values."""


class WeightsError(UsageError):
    """Weights that do not fit the model, or a file that would run code when loaded."""


class UnreachableBudgetError(CompressorError):
    """A budget lies below the smallest cost the model can be brought to."""

    exit_code = 3


class UnsupportedModelError(CompressorError):
    """The model cannot be traced: its forward raises, or nothing in it can be changed."""

    exit_code = 4


class VerificationError(CompressorError):
    """The trimmed model does not compute what the masked model computes."""

    exit_code = 5


class TrainingError(CompressorError):
    """Training had to stop, for instance because the loss became NaN."""


class ProcessLostError(CompressorError):
    """Of the processes that train together one is gone; what was stored before can be gone on with."""


class MissingDependencyError(CompressorError):
    """An optional package is needed; the message names the extra that installs it."""

    exit_code = 2
