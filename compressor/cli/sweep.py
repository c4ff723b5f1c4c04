"""``compress sweep``: several networks for several budgets in one command and one folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import click

from compressor.cli.compress import COMPRESS_OPTIONS, given_options, named_budgets, over_recipe, said
from compressor.cli.executors import Where, executor_options
from compressor.cli.fronts import front_text
from compressor.cli.method_options import MethodOptions
from compressor.cli.options import Of, stack
from compressor.cli.output import JobInterrupted, Output, output_options
from compressor.errors import UsageError
from compressor.jobs.asked import Asked
from compressor.jobs.recipes.read import read_recipe
from compressor.jobs.sweeps.asked import sweep_of
from compressor.jobs.sweeps.config import WORKERS, SweepConfig, read_budgets
from compressor.options import Names, read
from compressor.options.shared import SEED
from compressor.pipeline.defaults import default_sweep_search

_PAIRS = (("search", "methods"), ("seed", "seeds"), ("target", "targets"))
_EPILOG = (
    "Examples:\n\n\b\n"
    "  compress sweep --model resnet50 --budgets flops=25%,50%,75%\n"
    "  compress sweep --model resnet20_cifar --data cifar10:/data --search figs --budgets flops=25%,50% --seeds 0,1,2\n"
    "  compress pick compressed/sweep-resnet50 --budget-flops 40% --out small"
)


SWEEP_OPTIONS = stack(
    click.option(
        "--budgets",
        multiple=True,
        metavar="COST=B,...",
        help="Budgets of a cost, such as flops=25%,50%,75%; for several costs repeat the option: every combination is "
        "a point. --budget-flops and the like hold for all points.",
    ),
    click.option("--zip", "paired", is_flag=True, help="Take the first budgets of each cost together, the second, ..."),
    click.option(
        "--methods", type=Of(Names()), metavar="S,...", help="Sweep over search methods, too. [that of --search]"
    ),
    click.option("--seeds", metavar="N,...", help="Sweep over seeds, too. [that of --seed]"),
    click.option("--targets", type=Of(Names()), metavar="T,...", help="Sweep over targets, too. [that of --target]"),
    click.option("--cold", is_flag=True, help="Begin every search at the original, not at the next larger result."),
)


@click.command(cls=MethodOptions, epilog=_EPILOG)
@COMPRESS_OPTIONS
@SWEEP_OPTIONS
@click.option(
    "--workers", type=Of(WORKERS), default=1, metavar="N", help="Points side by side. [1; on Ray what it has]"
)
@executor_options
@output_options
@click.pass_context
def sweep(ctx: click.Context, /, output: Output, **options: Any) -> None:
    """Several networks for several budgets, in one folder, and the front that they make.

    All options of the main job hold for every point. What is done is not done again: run the same command to go on.
    """
    where = Where.taken(options)
    given = given_options(ctx, options)
    config = sweep_config(options, given)
    make = where.executor(config.workers if "workers" in given else None, config.targets)
    with output.working():
        from compressor.jobs.sweeps.run import run_sweep

        try:
            found = run_sweep(config, events=output.events(), quiet=output.quiet, make=make)
        except KeyboardInterrupt as error:
            raise JobInterrupted(
                f"Interrupted. Run the same command again to go on from where it stopped (kept in '{config.out}')."
            ) from error
        document = {**found.to_json(), "folder": config.out}
        text = f"{front_text(document, found.count)}\n\n{config.out}/front.html"
    output.emit(document, lambda: text)


def sweep_config(options: Mapping[str, Any], given: Collection[str] | None = None) -> SweepConfig:
    """The options as one checked sweep; ``given`` as for ``job_config``. Raises ``UsageError``."""
    return sweep_of(asked_sweep(options, given))


def asked_sweep(options: Mapping[str, Any], given: Collection[str] | None = None) -> Asked:
    """What was given, over what the recipe says that it names; an option and its plural count as one."""
    values = said(options, given)
    recipe = values.pop("config", None)
    base = Asked() if recipe is None else read_recipe(recipe, sweep=True)
    fixed, swept = named_budgets(values), read_budgets(values.pop("budgets", ()))
    if both := sorted(set(fixed) & set(swept)):
        raise UsageError(f"Budgets of {both[0]} are given by --budgets and by --budget-{both[0]}; keep one of them.")
    if "seeds" in values:
        values["seeds"] = _seeds(values["seeds"])
    if "paired" in values:
        values["zip"] = values.pop("paired")
    for pair in _PAIRS:
        if any(name in values for name in pair):
            base = base.without(pair)
    return over_recipe(values, {**fixed, **swept}, base, default_sweep_search)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(read("--seeds", SEED, part.strip()) for part in text.split(","))
