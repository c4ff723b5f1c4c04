"""Options of the search methods on the command line: ``--figs.tau 0.01``. Each method declares its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import click

from compressor.cli.options import Of
from compressor.errors import UsageError
from compressor.jobs.config import OF_THE_JOB
from compressor.options import read
from compressor.search import METHODS, get_method, usable_methods

#: Options with names of their own, too; they go to the method that is chosen.
_SHORT = ("learn", "penalty", "penalty_ramp", "compiler", "grow", "kernel_sizes", "dilations")


class MethodOption(click.Option):
    """An option of one search method; ``heading`` is where the help lists it."""

    def __init__(self, method: str, name: str, **more: Any) -> None:
        super().__init__([f"--{method}.{name.replace('_', '-')}", key_of(method, name)], **more)
        self.heading = f"Options of --search {method}"


class MethodOptions(click.Command):
    """A command that has the options of all search methods, each method's under a heading of its own in the help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *method_options()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's options, then those of each search method."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def key_of(method: str, name: str) -> str:
    """What click calls the value."""
    return f"{method}__{name}"


@cache
def method_options() -> tuple[click.Option, ...]:
    """An option for each of each method, and the short names."""
    found: list[click.Option] = []
    for method in usable_methods():  # another package's mistake must not take the help away
        for each in fields(method.config):
            if "kind" in each.metadata and each.name not in OF_THE_JOB:
                default = "" if each.default is None else f" [{each.default}]"
                text = f"{each.metadata['doc']}{default}"
                found.append(
                    MethodOption(method.name, each.name, type=Of(each.metadata["kind"]), metavar="X", help=text)
                )
    for name in _SHORT:
        found.append(click.Option([f"--{name.replace('_', '-')}", f"short__{name}"], hidden=True))
    return tuple(found)


def methods_given(values: Mapping[str, Any], options: Collection[str] = ()) -> list[str]:
    """The one method that options in ``values`` are of by name, and ``options`` of a recipe; none if several are."""
    found = {key.partition("__")[0] for key, value in values.items() if "__" in key and value is not None}
    found = (found | set(options)) - {"short"}
    return list(found) if len(found) == 1 else []


def own_options(values: dict[str, Any], chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Take all of them out of ``values``; returns those that were given, by method.

    Args:
        chosen: the methods that search.

    Raises:
        UsageError: an option of another method was given, or one twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for key in [key for key in values if "__" in key]:
        value = values.pop(key)
        if value is None:
            continue
        method, _, name = key.partition("__")
        if method == "short":
            method = _owner(chosen, name)
            value = _of_method(method, name, value)
        elif method not in chosen:
            flag = f"--{method}.{name.replace('_', '-')}"
            listed = " and ".join(chosen)
            raise UsageError(f"{flag} is for --search {method}, and {listed} was chosen; leave one of them out.")
        if found.setdefault(method, {}).setdefault(name, value) != value:
            flags = f"--{name.replace('_', '-')} and --{method}.{name.replace('_', '-')}"
            raise UsageError(f"{flags} say different things; keep one of them.")
    return found


def _owner(chosen: list[str], name: str) -> str:
    """Of several methods the first that has the option; else the last, which refuses it."""
    known = [method for method in chosen if method in METHODS]
    having = [method for method in known if any(each.name == name for each in fields(get_method(method).config))]
    return having[0] if having else chosen[-1]


def _of_method(method: str, name: str, value: Any) -> Any:
    """A short name's value as the method reads it; the method itself refuses what it does not have."""
    if method in METHODS:
        for each in fields(get_method(method).config):
            if each.name == name:
                return read(f"--{name.replace('_', '-')}", each.metadata["kind"], value)
    return value
