"""Options of a job, however it is asked for: name, kind, default and words of each are said here, and nowhere else.

``Training`` and ``Scope`` (Python), ``Settings`` (the stages) and ``JobConfig`` (command line, recipes and service)
derive from these, and add what only they have. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.options import Flag, Number, Options, Patterns, Whole, option, redeclared
from compressor.options.shared import BATCH_SIZE, EPOCHS, LR, LRS, OPTIMIZER, SEED
from compressor.pipeline.defaults import DEFAULT_BATCH_SIZE
from compressor.pipeline.grid import NAMES, Grid, Tune, read_grid, require_finetuning


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """How a job trains. Epochs, batch size and rate are None where they follow from the data or the optimizer."""

    finetune_epochs: int | None = option(None, EPOCHS, "Epochs of fine-tuning.")
    batch_size: int | None = option(None, BATCH_SIZE, "Samples in a batch, over all processes.")
    optimizer: str = option(
        "sgd", OPTIMIZER, "Of the weights, in training, search and fine-tuning: sgd, or adamw, as transformers need it."
    )
    lr: float | None = option(
        None,
        LR,
        f"Learning rate of training and fine-tuning; by default {LRS['sgd']}, with adamw {LRS['adamw']}.",
    )
    accumulate: int = option(1, Whole(1, 65536), "Batches that make one step.")
    clip_norm: float | None = option(None, Number(above=0), "Largest norm of a step's gradients; by default any.")
    amp: bool | None = option(
        None, Flag(), "Mixed precision: bfloat16, float16 on older GPUs; by default on a GPU only."
    )
    compile: bool = option(False, Flag(), "Compile networks (torch.compile) where they are trained without masks.")
    distill: float = option(0.0, Number(least=0, most=1), "Weight of the original's outputs in the loss, 0 to 1.")
    tune: str | Grid = option(
        "auto",
        Tune(),
        f"Settings of fine-tuning to choose from in short trials on held-out samples: {', '.join(NAMES)}, or a grid.",
    )
    tune_epochs: int | None = option(
        None, Whole(1, 1_000_000), "Epochs of a trial; by default a fifth of those of fine-tuning."
    )
    tune_samples: float = option(
        0.2, Number(above=0, most=1), "Share of the training samples in an epoch of a trial, others in each."
    )
    trial_workers: int = option(1, Whole(1, 256), "Trials that run side by side, in processes of their own.")
    seed: int = option(0, SEED, "Of everything that is drawn.")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tune", read_grid(self.tune))


@dataclass(frozen=True, kw_only=True)
class ScopeOptions(Options):
    """Which parts of a model may change."""

    include: Sequence[str] = option((), Patterns(), "Modules that may be compressed, by default all.")
    exclude: Sequence[str] = option((), Patterns(), "Modules that are left alone.")
    round_to: int | None = option(
        None,
        Whole(1),
        "What widths are multiples of, 1 for any; by default powers of two up to 16, as the width allows.",
    )
    absorb: bool = option(
        True, Flag(), "Without data: whether biases and batch norms take up the mean of channels that go."
    )


@dataclass(frozen=True, kw_only=True)
class JobOptions(TrainingOptions, ScopeOptions):
    """Both, with nothing of it left open."""

    train_epochs: int = option(0, EPOCHS, "Epochs of training the original first.")
    finetune_epochs: int = redeclared(TrainingOptions, "finetune_epochs", 0)
    batch_size: int = redeclared(TrainingOptions, "batch_size", DEFAULT_BATCH_SIZE)
    lr: float = redeclared(TrainingOptions, "lr", None, optional=False)

    def __post_init__(self) -> None:
        if self.lr is None:
            object.__setattr__(self, "lr", LRS.get(str(self.optimizer)))
        super().__post_init__()
        require_finetuning(self.tune, self.finetune_epochs)
