"""The main job: ``compress --model M --budget-flops 50% ...``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from compressor.budget import BASE_UNITS
from compressor.cli.method_options import methods_given, own_options
from compressor.cli.options import job_option, keep_option, model_option, stack, structure_options, trust_option
from compressor.cli.output import JobInterrupted, Output
from compressor.cli.tune_options import taken_grid, tune_options
from compressor.errors import UsageError
from compressor.jobs.asked import Asked
from compressor.jobs.config import JobConfig
from compressor.jobs.recipes.read import read_recipe
from compressor.options import shown
from compressor.pipeline.defaults import DEFAULT_EPOCHS, default_search
from compressor.process.environment import launched_rank

budget_options = stack(
    click.option("--budget-flops", metavar="B", help="Most multiply-adds: 2G, 500M or 50% of the model's own."),
    click.option("--budget-params", metavar="B", help="Most parameters: 5M or 50%."),
    click.option("--budget-memory", metavar="B", help="Most activation memory at batch 1: 12MB, 12MiB or 50%."),
    click.option("--budget-latency", metavar="B", help="Most milliseconds of one run on --target: 3ms or 60%."),
    click.option(
        "--budget-complexity", metavar="B", help="Most operations with long convolutions counted as through the FFT."
    ),
    click.option(
        "--budget",
        "other_budgets",
        multiple=True,
        metavar="COST=B",
        help="A budget of any cost by name, such as one that another package added; may be repeated.",
    ),
    job_option("target", "T"),
    job_option("lut", "FILE"),
    job_option("threads", "N"),
)

COMPRESS_OPTIONS = stack(
    click.option(
        "--config",
        metavar="FILE",
        help="A recipe: these options by name, in YAML or JSON. What stands on the command line wins.",
    ),
    model_option(required=False),
    trust_option,
    budget_options,
    job_option("weights", "W"),
    click.option(
        "--data",
        metavar="D",
        help="digits, cifar10:DIR, cifar100:DIR, fashionmnist:DIR, imagefolder:DIR, multilabel:DIR, segmentation:DIR, "
        "coco:DIR (boxes), fsdd:DIR, listops:n=N,length=L, darcy:DIR, hf:PLACE (text), npz:FILE or pkg.module:factory. "
        "Loss and metric follow from the targets. Without it nothing is trained.",
    ),
    job_option("data_workers", "N"),
    job_option("search", "S", unsaid="oneshot; figs with data and --search-epochs"),
    job_option("importance", "I", unsaid="oneshot with data: sensitivity"),
    job_option("train_epochs", "N"),
    job_option("search_epochs", "N", unsaid=f"{DEFAULT_EPOCHS} with data"),
    job_option(
        "finetune_epochs", "N", unsaid=f"{DEFAULT_EPOCHS} with data, {2 * DEFAULT_EPOCHS} where no search is named"
    ),
    job_option("batch_size", "N"),
    job_option("accumulate", "N"),
    job_option("optimizer", "O"),
    job_option("lr", "X"),
    job_option("clip_norm", "X"),
    job_option("amp"),
    job_option("compile"),
    job_option("distill", "X"),
    tune_options,
    job_option("round_to", "N"),
    job_option("include", "PATTERN", multiple=True),
    job_option("exclude", "PATTERN", multiple=True),
    keep_option,
    job_option("absorb"),
    structure_options,
    job_option("export", "F,..."),
    job_option("bench_seconds", "S"),
    job_option("start", "FOLDER"),
    job_option("track", "T,...", unsaid="none but events.jsonl in the folder"),
    job_option("out", "DIR", unsaid="compressed/..."),
    job_option("force"),
    job_option("seed", "N"),
    job_option("device", "D"),
)


def compress(output: Output, options: Mapping[str, Any], given: Collection[str]) -> None:
    """Run the main job and write its report to stdout. ``given`` names the options that stand on the command line."""
    config = job_config(options, given)
    with output.working():
        from compressor.jobs.run import run_job

        try:
            report = run_job(config, events=output.events())
        except KeyboardInterrupt as error:
            raise JobInterrupted(
                f"Interrupted. Run the same command again to go on from where it stopped (kept in '{config.out}')."
            ) from error
        from compressor.report import summary_text
    if launched_rank() == 0:
        output.emit(report.to_json(), lambda: summary_text(report))


def job_config(options: Mapping[str, Any], given: Collection[str] | None = None) -> JobConfig:
    """The options as one checked configuration.

    Args:
        given: those that were given; by default all that have a value. What was not is what a recipe says, or the
            default.

    Raises:
        UsageError: something is missing, or cannot be.
    """
    return asked_for(said(options, given)).job()


def said(options: Mapping[str, Any], given: Collection[str] | None) -> dict[str, Any]:
    """The options that were given."""
    return {n: value for n, value in options.items() if value is not None and (given is None or n in given)}


def given_options(ctx: click.Context, options: Mapping[str, Any]) -> list[str]:
    """Names of those that stand on the command line."""
    return [name for name in options if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE]


def asked_for(values: dict[str, Any]) -> Asked:
    """What was given, over what the recipe says that it names."""
    recipe = values.pop("config", None)
    return over_recipe(values, named_budgets(values), Asked() if recipe is None else read_recipe(recipe))


def over_recipe(
    values: dict[str, Any],
    budgets: Mapping[str, Any],
    base: Asked,
    default: Callable[[str | None, object], str] = default_search,
) -> Asked:
    """What was given, over what a recipe says. ``default`` is the search where neither names one, given the data and
    the epochs of a search."""
    grid = taken_grid(values)
    told = Asked(values).over(base)
    chosen = told.chosen or (methods_given(values, told.options) if default is default_search else [])
    own = own_options(values, chosen or [default(told.values.get("data"), told.values.get("search_epochs"))])
    return Asked({**values, "tune": grid} if grid is not None else values, budgets, own).over(base)


def named_budgets(values: dict[str, Any]) -> dict[str, str]:
    """Take the budgets by cost out of ``values``. Raises ``UsageError`` for two of one cost."""
    given = {cost: values.pop(f"budget_{cost}", None) for cost in BASE_UNITS}
    named = {cost: text for cost, text in given.items() if text is not None}
    for each in values.pop("other_budgets", ()):
        cost, equals, text = each.partition("=")
        if not equals:
            raise UsageError(f"--budget takes a cost and an amount, such as flops=50%, not {shown(each)}.")
        if cost in named:
            raise UsageError(f"Two budgets for {cost} were given; keep one for each cost.")
        named[cost] = text
    return named
