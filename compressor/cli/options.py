"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from compressor.errors import UsageError
from compressor.options import Kind, Names, Shape, read, shown
from compressor.options.shared import NUM_CLASSES

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


keep_option: Decorator = click.option(
    "--keep",
    multiple=True,
    metavar="PATTERN=W",
    help="Least width of matching modules: channels, such as conv1=16, or a share, layer4*=50%; may be repeated.",
)


def trust_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--trust-factories``."""
    return click.option(
        "--trust-factories",
        type=Of(Names()),
        default=(),
        metavar="F,...",
        help="Factories (pkg.module:name), modules or packages that a saved folder may name to be imported. [none]",
    )(function)


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


def structure_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--num-classes`` and ``--input-shape``."""
    for option in (
        click.option(
            "--input-shape",
            type=Of(Shape()),
            metavar="C,H,W",
            help="Shape of one input, if not the model's or data's own.",
        ),
        click.option("--num-classes", type=Of(NUM_CLASSES), metavar="N", help="Classes of the model's head."),
    ):
        function = option(function)
    return function


def stack(*decorators: Decorator) -> Decorator:
    """Several decorators as one, the first outermost, as if they stood in that order above a function."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply
