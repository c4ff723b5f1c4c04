"""What every command shares: text or JSON on stdout, everything else on stderr."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from compressor.cli import streams
from compressor.printable import printable, printable_json

if TYPE_CHECKING:
    from compressor.pipeline.events import Events

SCHEMA_VERSION = 1


class JobInterrupted(KeyboardInterrupt):
    """Ctrl-C during a job that can be gone on with; the text says how."""


@dataclass(frozen=True)
class Output:
    """How a command answers."""

    as_json: bool = False
    debug: bool = False
    quiet: bool = False

    def events(self) -> Events:
        """Events that are written to stderr as the user wants them."""
        from compressor.pipeline.console import Console
        from compressor.pipeline.events import Events

        return Events(Console(quiet=self.quiet))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep stdout for the result: what libraries print goes to stderr, and their warnings show under --debug."""
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            if not self.debug:
                warnings.simplefilter("ignore")
            yield

    def emit(self, document: dict[str, Any], text: Callable[[], str]) -> None:
        """Write the result: one JSON document with its schema version, or the text."""
        if self.as_json:
            write_json({"schema_version": document.get("schema_version", SCHEMA_VERSION), **document})
        else:
            streams.result(printable(text()))


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--format``, ``--quiet`` and ``--debug``; the command gets them as ``output``.

    Given before a command's name they count as well.
    """

    @click.option("--format", "output_format", type=click.Choice(["text", "json"]), help="Form of the result. [text]")
    @click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
    @click.option("--debug", is_flag=True, help="Show tracebacks and warnings of libraries.")
    @click.pass_context
    @functools.wraps(function)
    def wrapped(
        ctx: click.Context, /, *args: Any, output_format: str | None, quiet: bool, debug: bool, **options: Any
    ) -> Any:
        outer = ctx.find_object(Output) or Output()
        as_json = outer.as_json if output_format is None else output_format == "json"
        output = Output(as_json, debug or outer.debug, quiet or outer.quiet)
        return function(*args, output=output, **options)

    return wrapped


def error_document(kind: str, message: str, exit_code: int) -> dict[str, Any]:
    """The JSON document of a failed command."""
    return {
        "schema_version": SCHEMA_VERSION,
        "error": {"type": kind, "message": message, "exit_code": exit_code},
    }


def write_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout. Values that are not finite are a mistake and raise."""
    streams.result(printable_json(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)))
