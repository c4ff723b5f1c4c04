"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from compressor.errors import UsageError
from compressor.jobs.config import JobConfig
from compressor.options import Flag, Kind, read, shown

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Of(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """What a kind takes (``compressor.options``): the same values and words as in Python."""

    name = "value"

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a value of the kind."""
        try:
            return read("it", self.kind, value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class OpenAxes(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """Open axes by input, such as ``input:2=length`` or ``ids:1=length,mask:1=length``; ``auto`` or ``none``."""

    name = "axes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to what exporters take as ``dynamic_axes``."""
        if not isinstance(value, str) or value == "auto":
            return value
        if value == "none":
            return None
        found: dict[str, dict[int, str]] = {}
        for part in value.split(","):
            place, _, label = part.strip().partition("=")
            name, _, axis = place.rpartition(":")
            if not name or not axis.isdecimal() or len(axis) > 3 or not label.isidentifier():
                self.fail(
                    f"{shown(part)} names no open axis; expected INPUT:AXIS=NAME, such as input:2=length.", param, ctx
                )
            found.setdefault(name, {})[int(axis)] = label
        return found


def model_option(required: bool) -> Decorator:
    """``--model``."""
    return click.option(
        "--model",
        required=required,
        metavar="M",
        help="A torchvision name, timm:NAME, hf:NAME, pkg.module:factory, a shipped backbone or a saved folder.",
    )


_DECLARED = {each.name: each for each in fields(JobConfig)}


def job_option(
    name: str, metavar: str | None = None, *, unsaid: str | None = None, multiple: bool = False
) -> Decorator:
    """The option of a job that ``JobConfig`` declares by this name, with the words and the kind that it has there.

    Args:
        unsaid: what holds where it is not given, for the help; by default what is declared.
        multiple: whether it may be repeated. Its values are then read by the job, as all of them together.

    What is not given has no value here, or no elements: it is what a recipe says, or else the default of the job.
    """
    declared = _DECLARED[name]
    kind, default, flag = declared.metadata["kind"], declared.default, f"--{name.replace('_', '-')}"
    if unsaid is None:
        unsaid = ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
        unsaid = unsaid.removesuffix(".0")
    switch = isinstance(kind, Flag)
    if switch and default is not False:
        flag, unsaid = f"{flag}/--no-{flag[2:]}", ""
    repeated = " May be repeated." if multiple else ""
    return click.option(
        flag,
        default=() if default == () else None,
        is_flag=switch or None,
        type=None if switch or multiple else Of(kind),
        multiple=multiple,
        metavar=metavar,
        help=declared.metadata["doc"] + repeated + (f" [{unsaid}]" if unsaid and not switch else ""),
    )


keep_option = job_option("keep", "PATTERN=W", multiple=True)
trust_option = job_option("trust_factories", "F,...", unsaid="none")


def model_or_folder(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--model``, a saved folder, or both: the model then says how the folder's original is built."""

    @functools.wraps(function)
    def named(model: str | None, folder: str | None, **rest: Any) -> Any:
        if model is None and folder is None:
            raise click.UsageError("There is no model: pass --model M, or a saved folder.")
        return (
            function(model=folder, folder=None, **rest)
            if model is None
            else function(model=model, folder=folder, **rest)
        )

    return model_option(required=False)(click.argument("folder", required=False)(named))


def stack(*decorators: Decorator) -> Decorator:
    """Several decorators as one, the first outermost, as if they stood in that order above a function."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


structure_options = stack(job_option("num_classes", "N"), job_option("input_shape", "C,H,W"))
