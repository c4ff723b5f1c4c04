"""Errors raised on purpose while exporting. ``exit_code`` is what a command line should exit with."""

from __future__ import annotations


class ExporterError(Exception):
    """The model could not be exported; the message says where the exporter stopped and what to do."""

    exit_code = 1


class ExporterUsageError(ExporterError, ValueError):
    """An option, an input or a format name that cannot be used."""

    exit_code = 2


class MissingPackageError(ExporterError):
    """A format needs a package that is not installed; the message names the extra that brings it."""

    exit_code = 2


class UnsupportedExportError(ExporterError):
    """The exporter or the runtime refuses an operator of the model."""

    exit_code = 4


class ExportCheckError(ExporterError):
    """The exported file does not compute what the PyTorch model computes."""

    exit_code = 5
