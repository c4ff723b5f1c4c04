"""``compress sweep``: several networks for several budgets in one command and one folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

from compressor.cli.compress import COMPRESS_OPTIONS, given_options, named_budgets, over_recipe, said
from compressor.cli.method_options import MethodOptions
from compressor.cli.options import Of
from compressor.cli.output import JobInterrupted, Output, output_options
from compressor.cli.tables import table
from compressor.errors import UsageError
from compressor.jobs.asked import Asked, completed, methods_in, require_model
from compressor.jobs.config import default_out
from compressor.jobs.recipes.read import read_recipe
from compressor.jobs.sweeps.config import WORKERS, Combination, SweepConfig, combinations, read_budgets
from compressor.options import Names, read, shown
from compressor.options.shared import SEED
from compressor.pipeline.defaults import DEFAULT_EPOCHS, default_sweep_search
from compressor.search import METHODS, get_method

if TYPE_CHECKING:
    from compressor.jobs.sweeps.outcome import Outcome

_PAIRS = (("search", "methods"), ("seed", "seeds"), ("target", "targets"))
_EPILOG = (
    "Examples:\n\n\b\n"
    "  compress sweep --model resnet50 --budgets flops=25%,50%,75%\n"
    "  compress sweep --model resnet20_cifar --data cifar10:/data --search figs --budgets flops=25%,50% --seeds 0,1,2\n"
    "  compress pick compressed/sweep-resnet50 --budget-flops 40% --out small"
)


@click.command(cls=MethodOptions, epilog=_EPILOG)
@COMPRESS_OPTIONS
@click.option(
    "--budgets",
    multiple=True,
    metavar="COST=B,...",
    help="Budgets of a cost, such as flops=25%,50%,75%; for several costs repeat the option: every combination is a "
    "point. --budget-flops and the like hold for all points.",
)
@click.option("--zip", "paired", is_flag=True, help="Take the first budgets of each cost together, the second, ...")
@click.option("--methods", type=Of(Names()), metavar="S,...", help="Sweep over search methods, too. [that of --search]")
@click.option("--seeds", metavar="N,...", help="Sweep over seeds, too. [that of --seed]")
@click.option("--targets", type=Of(Names()), metavar="T,...", help="Sweep over targets, too. [that of --target]")
@click.option("--workers", type=Of(WORKERS), default=1, metavar="N", help="Points side by side, in processes. [1]")
@click.option("--cold", is_flag=True, help="Begin every search at the original, not at the next larger result.")
@output_options
@click.pass_context
def sweep(ctx: click.Context, /, output: Output, **options: Any) -> None:
    """Several networks for several budgets, in one folder, and the front that they make.

    All options of the main job hold for every point. What is done is not done again: run the same command to go on.
    """
    config = sweep_config(options, given_options(ctx, options))
    with output.working():
        from compressor.jobs.sweeps.run import run_sweep

        try:
            found = run_sweep(config, events=output.events(), quiet=output.quiet)
        except KeyboardInterrupt as error:
            raise JobInterrupted(
                f"Interrupted. Run the same command again to go on from where it stopped (kept in '{config.out}')."
            ) from error
        document, text = found.to_json(), _text(found)
    output.emit({**document, "folder": config.out}, lambda: text)


def sweep_config(options: Mapping[str, Any], given: Collection[str] | None = None) -> SweepConfig:
    """The options as one checked sweep; ``given`` as for ``job_config``. Raises ``UsageError``."""
    asked = _asked_for(said(options, given))
    values = dict(asked.values)
    require_model(values)
    if values.get("start") is not None:
        raise UsageError("The points of a sweep begin where the sweep says; leave --start out.")
    budgets = _combinations(asked.budgets, paired=values.pop("zip", False))
    methods = _either(values, "search", "methods") or (default_sweep_search(values.get("data")),)
    seeds, targets = _either(values, "seed", "seeds") or (0,), _either(values, "target", "targets") or (None,)
    workers, cold, force = values.pop("workers", 1), values.pop("cold", False), values.pop("force", False)
    out = values.pop("out", None) or default_out(values["model"], budgets[0][:0], "sweep")
    several = len(methods) > 1
    if several and (strange := next((name for name in methods if "," in name), None)) is not None:
        raise UsageError(f"--methods takes single methods, not {shown(strange)}.")
    own = asked.options_of(methods if several else methods_in(methods[0]))
    jobs = []
    for method in methods:
        mine = {**values, "search": method, "out": out, "seed": seeds[0], "target": targets[0]}
        mine["options"] = own.get(method, {}) if several else own
        if several and method in METHODS and get_method(method).ranked_by is None:
            mine["importance"] = None
        points = method in METHODS and get_method(method).points
        epochs = 0 if points else DEFAULT_EPOCHS
        jobs.append(completed(mine, budgets[0], finetune_epochs=epochs, bench_seconds=0.0))
    return SweepConfig(
        jobs=tuple(jobs),
        budgets=budgets,
        out=out,
        seeds=seeds,
        targets=targets,
        workers=workers,
        cold=cold,
        force=force,
    )


def _asked_for(values: dict[str, Any]) -> Asked:
    """What was given, over what the recipe says that it names; an option and its plural count as one."""
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


def _combinations(budgets: Mapping[str, Any], *, paired: bool) -> tuple[Combination, ...]:
    """All combinations; one budget of a cost is part of each."""
    fixed = {cost: text for cost, text in budgets.items() if isinstance(text, str)}
    swept = {cost: texts for cost, texts in budgets.items() if cost not in fixed}
    if not swept:
        raise UsageError("There are no budgets to sweep over; pass some, for example --budgets flops=25%,50%,75%.")
    count = max(len(each) for each in swept.values()) if paired else 1
    return combinations(swept | {cost: [text] * count for cost, text in fixed.items()}, paired=paired)


def _either(values: dict[str, Any], one: str, several: str) -> tuple[Any, ...]:
    """What was given by an option of the main job, or as a list by that of the sweep, taken out of ``values``."""
    single, listed = values.pop(one, None), values.pop(several, None)
    if single is not None and listed:
        raise UsageError(f"--{one} and --{several} are both given; keep one of them.")
    return tuple(listed) if listed else () if single is None else (single,)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(read("--seeds", SEED, part.strip()) for part in text.split(","))


def _text(found: Outcome) -> str:
    """The table of points."""
    from compressor.jobs.sweeps.outcome import shown_score
    from compressor.report.wording import amount, percent

    costs = found.sweep.costs
    first = next(iter(found.rows.values()))
    metric = first["metric"]
    rows = []
    for point in found.points:
        row = found.rows[point["name"]]
        cells = [point["name"]]
        for cost in costs:
            reached, original = row["costs"][cost], row["original"][cost]
            share = f" ({percent(reached / original)})" if original else ""
            cells.append(f"{amount(reached, row['units'][cost])}{share}")
        cells.append("-" if point["score"] is None else shown_score(point["score"], metric))
        beaten = point["dominated_by"]
        cells.append(("" if row["met"] else "over budget") or ("" if beaten is None else f"beaten by {beaten}"))
        rows.append(cells)
    before = "" if first["before"] is None else f"; the original has {shown_score(first['before'], metric)}"
    title = f"{found.sweep.jobs[0].model}: {len(rows)} of {found.count} points{before}"
    text = table(title, ["point", *costs, metric or "score", ""], rows)
    return f"{text}\n\n{found.sweep.out}/front.html"
