"""The main job: ``compress --model M --budget-flops 50% ...``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from compressor.budget import BASE_UNITS
from compressor.cli.method_options import own_options
from compressor.cli.options import Of, keep_option, model_option, stack, structure_options, trust_option
from compressor.cli.output import JobInterrupted, Output
from compressor.cli.tune_options import taken_grid, tune_options
from compressor.errors import UsageError
from compressor.jobs.asked import Asked
from compressor.jobs.config import JobConfig
from compressor.jobs.recipes.read import read_recipe
from compressor.options import Names, shown
from compressor.options.shared import (
    ACCUMULATE,
    BATCH_SIZE,
    BENCH_SECONDS,
    CLIP_NORM,
    DATA_WORKERS,
    DISTILL,
    EPOCHS,
    LR,
    LRS,
    OPTIMIZER,
    ROUND_TO,
    SEED,
    THREADS,
)
from compressor.pipeline.defaults import DEFAULT_BENCH_SECONDS, DEFAULT_EPOCHS, default_search
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
    click.option("--target", metavar="T", help="Where a latency budget holds; 'compress targets' lists them."),
    click.option("--lut", metavar="FILE", help="The latency table. [$XDG_CACHE_HOME/compressor/lut.sqlite]"),
    click.option("--threads", type=Of(THREADS), metavar="N", help="CPU threads on --target. [all cores]"),
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
    click.option(
        "--weights",
        default="default",
        metavar="W",
        help="default (the library's pretrained ones), none (random), or a file: .safetensors, .pt, .pth. [default]",
    ),
    click.option(
        "--data",
        metavar="D",
        help="digits, cifar10:DIR, cifar100:DIR, fashionmnist:DIR, imagefolder:DIR, multilabel:DIR, segmentation:DIR, "
        "coco:DIR (boxes), fsdd:DIR, listops:n=N,length=L, darcy:DIR, hf:PLACE (text), npz:FILE or pkg.module:factory. "
        "Loss and metric follow from the targets. Without it nothing is trained.",
    ),
    click.option(
        "--data-workers",
        type=Of(DATA_WORKERS),
        default=0,
        metavar="N",
        help="Processes that read data of many files, images say; 0 reads in threads. Batches are the same. [0]",
    ),
    click.option(
        "--search",
        metavar="S",
        help="What chooses; options of each are listed below. [figs with data, oneshot without]",
    ),
    click.option(
        "--importance",
        metavar="I",
        help="oneshot, dnarch: rank channels by sensitivity, magnitude (l2), l1, taylor, bn-scale or random. "
        "[oneshot with data: sensitivity]",
    ),
    click.option("--train-epochs", type=Of(EPOCHS), metavar="N", help="Train the original first, for N epochs. [0]"),
    click.option(
        "--search-epochs",
        type=Of(EPOCHS),
        metavar="N",
        help=f"Epochs of a search that trains. [{DEFAULT_EPOCHS} with data]",
    ),
    click.option(
        "--finetune-epochs", type=Of(EPOCHS), metavar="N", help=f"Epochs of fine-tuning. [{DEFAULT_EPOCHS} with data]"
    ),
    click.option(
        "--batch-size", type=Of(BATCH_SIZE), default=64, metavar="N", help="Samples, over all processes. [64]"
    ),
    click.option("--accumulate", type=Of(ACCUMULATE), default=1, metavar="N", help="Batches that make one step. [1]"),
    click.option(
        "--optimizer",
        type=Of(OPTIMIZER),
        default="sgd",
        metavar="O",
        help="Of the weights, in training, search and fine-tuning: sgd, or adamw, as transformers need it. [sgd]",
    ),
    click.option(
        "--lr",
        type=Of(LR),
        metavar="X",
        help=f"Learning rate of training and fine-tuning. [{LRS['sgd']}; with adamw {LRS['adamw']}]",
    ),
    click.option("--clip-norm", type=Of(CLIP_NORM), metavar="X", help="Largest norm of a step's gradients. [any]"),
    click.option("--amp/--no-amp", default=None, help="Mixed precision: bfloat16, float16 on older GPUs. [on a GPU]"),
    click.option(
        "--compile", is_flag=True, help="Compile networks (torch.compile) where they are trained without masks."
    ),
    click.option(
        "--distill",
        type=Of(DISTILL),
        default=0.0,
        metavar="X",
        help="Weight of the original's logits in the loss, 0 to 1. [0]",
    ),
    tune_options,
    click.option(
        "--round-to",
        type=Of(ROUND_TO),
        metavar="N",
        help="Keep multiples of N channels; 1 allows any width. [powers of two up to 16, as the width allows]",
    ),
    click.option(
        "--include", multiple=True, metavar="PATTERN", help="Compress matching modules only; may be repeated."
    ),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave matching modules alone; may be repeated."),
    keep_option,
    click.option(
        "--absorb/--no-absorb",
        default=True,
        help="Without data: biases and batch norms take up the mean of channels that go. [absorb]",
    ),
    structure_options,
    click.option(
        "--export", type=Of(Names()), default=("onnx",), metavar="F,...", help="Formats to write, or none. [onnx]"
    ),
    click.option(
        "--bench-seconds",
        type=Of(BENCH_SECONDS),
        metavar="S",
        help=f"How long to time both networks at the end, 0 for not at all. [{DEFAULT_BENCH_SECONDS:g}]",
    ),
    click.option(
        "--start",
        metavar="FOLDER",
        help="Begin the search at an earlier result of the same model, or take one of the networks that a search left.",
    ),
    click.option(
        "--track",
        type=Of(Names()),
        default=(),
        metavar="T,...",
        help="Tell trackers what happens: tensorboard, mlflow, wandb, trackio. [none but events.jsonl in the folder]",
    ),
    click.option("--out", metavar="DIR", help="Folder to write; an interrupted job goes on there. [compressed/...]"),
    click.option("--force", is_flag=True, help="Overwrite a folder that holds another job."),
    click.option("--seed", type=Of(SEED), default=0, metavar="N", help="[0]"),
    click.option("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps. [auto]"),
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
    default: Callable[[str | None], str] = default_search,
) -> Asked:
    """What was given, over what a recipe says. ``default`` is the search where neither names one, given the data."""
    grid = taken_grid(values)
    told = Asked(values).over(base)
    own = own_options(values, told.chosen or [default(told.values.get("data"))])
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
