"""Options of the stage that tunes: ``--tune short``, ``--tune.lr 0.1,0.01``."""

from __future__ import annotations

from typing import Any

import click

from compressor.cli.options import Decorator, Of, stack
from compressor.errors import UsageError
from compressor.pipeline.grid import AXES, NAMES, TRIAL_WORKERS, TUNE_EPOCHS, TUNE_SAMPLES, Numbers, Tune

_WHAT = {
    "lr": "Learning rates of a grid of your own.",
    "weight_decay": "Weight decays of it.",
    "momentum": "Momenta of it.",
    "dropout": "Dropout rates of it, for networks with dropout.",
}

tune_options: Decorator = stack(
    click.option(
        "--tune",
        type=Of(Tune()),
        metavar="G",
        help=f"Choose settings of fine-tuning in short trials on held-out samples: {', '.join(NAMES)}. [auto]",
    ),
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
    click.option(
        "--tune-epochs", type=Of(TUNE_EPOCHS), metavar="N", help="Epochs of a trial. [a fifth of --finetune-epochs]"
    ),
    click.option(
        "--tune-samples",
        type=Of(TUNE_SAMPLES),
        default=0.2,
        metavar="F",
        help="Share of the training samples in an epoch of a trial. [0.2]",
    ),
    click.option(
        "--trial-workers", type=Of(TRIAL_WORKERS), default=1, metavar="N", help="Trials that run side by side. [1]"
    ),
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
