"""Options of the stage that tunes: ``--tune short``, ``--tune.lr 0.1,0.01``."""

from __future__ import annotations

from typing import Any

import click

from compressor.cli.options import Decorator, Of, job_option, stack
from compressor.errors import UsageError
from compressor.pipeline.grid import AXES, Numbers

_WHAT = {
    "lr": "Learning rates of a grid of your own.",
    "weight_decay": "Weight decays of it.",
    "momentum": "Momenta of it.",
    "dropout": "Dropout rates of it, for networks with dropout.",
}

tune_options: Decorator = stack(
    job_option("tune", "G"),
    *(
        click.option(
            f"--tune.{axis.replace('_', '-')}",
            f"tune__{axis}",
            type=Of(Numbers(kind)),
            metavar="X,...",
            help=_WHAT[axis],
        )
        for axis, kind in AXES.items()
    ),
    job_option("tune_epochs", "N"),
    job_option("tune_samples", "F"),
    job_option("trial_workers", "N"),
)


def taken_grid(values: dict[str, Any]) -> Any:
    """Take the grid out of ``values``: a name, or values by axis, or None if nothing was said.

    Raises:
        UsageError: both were given.
    """
    name = values.pop("tune", None)
    axes = {axis: values.pop(f"tune__{axis}", None) for axis in AXES}
    given = {axis: found for axis, found in axes.items() if found is not None}
    if given and name is not None:
        flag = f"--tune.{next(iter(given)).replace('_', '-')}"
        raise UsageError(f"{flag} makes a grid of your own, and --tune {name} is another; keep one of them.")
    return given or name
