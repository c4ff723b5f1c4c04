"""``compress config``: what a recipe, a folder or a command line amounts to, and what a recipe may say."""

from __future__ import annotations

import json
from typing import Any

import click

from compressor.cli.compress import COMPRESS_OPTIONS, given_options, job_config
from compressor.cli.method_options import MethodOptions
from compressor.cli.output import Output, output_options
from compressor.errors import UsageError


@click.group()
def config() -> None:
    """Recipes: a job's options in a file."""


@config.command("show", cls=MethodOptions)
@click.argument("recipe", required=False)
@COMPRESS_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="JSON, the same as --format json.")
@output_options
@click.pass_context
def show(ctx: click.Context, /, output: Output, recipe: str | None, as_json: bool, **options: Any) -> None:
    """Print the whole recipe that RECIPE (a file, or the folder of a job) and the options given amount to.

    Nothing is loaded or written. The result is a recipe itself: every option with what it is.
    """
    given = given_options(ctx, options)
    if recipe is not None:
        if "config" in given:
            raise UsageError("There are two recipes, one with --config; keep one of them.")
        options["config"] = recipe
        given.append("config")
    if not given:
        raise UsageError("There is nothing to show; name a recipe, or the folder of a job, or pass options.")
    found = job_config(options, given)
    from compressor.jobs.recipes.write import recipe_text, recipe_values

    shown = Output(output.as_json or as_json, output.debug, output.quiet)
    shown.emit(recipe_values(found), lambda: recipe_text(found).removesuffix("\n"))


@config.command("schema")
@click.option("--sweep", is_flag=True, help="That of recipes for compress sweep.")
@output_options
def schema(sweep: bool, output: Output) -> None:
    """Print the JSON Schema of recipes, with the search methods and costs that are installed."""
    from compressor.jobs.recipes.schema import recipe_schema

    found = recipe_schema(sweep=sweep)
    output.emit(found, lambda: json.dumps(found, indent=2, ensure_ascii=False))
