"""What belongs together among the arguments of ``compress`` and ``prepare``, and their former names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import Tensor

from compressor.errors import UsageError
from compressor.options import Called, Options, Patterns, option, shown
from compressor.options.shared import EPOCHS
from compressor.pipeline.job_options import ScopeOptions, TrainingOptions
from compressor.search.constraints.wishes import ChosenChannels, LeastWidths


@dataclass(frozen=True, kw_only=True)
class Training(TrainingOptions):
    """How the program trains.

    Attributes:
        search_epochs, finetune_epochs: epochs of the search and after it; default 5 with data, and 10 of fine-tuning
            where no search is named.
        batch_size: samples in a batch, over all processes. By default that of the ``DataLoader`` to train on, else 64;
            loaders that make batches of their own (a sampler of your own, a list of batches) keep these.
        optimizer: ``"sgd"`` (with momentum) or ``"adamw"``, which transformers need: of the weights, in the search
            and in fine-tuning. Masks have optimizers of their own.
        lr: learning rate of fine-tuning; None: 0.05, with ``"adamw"`` 0.001. Searches have one of their own.
        accumulate: batches that make one step: the gradients are those of a batch as large as all of them together,
            where nothing goes over a batch (BatchNorm's statistics are those of each).
        clip_norm: largest norm of the gradients of the weights in a step; None: any. ``dash`` has its own option.
        amp: mixed precision: bfloat16, or float16 with a scaled loss on GPUs that do not compute in bfloat16. By
            default on GPUs only.
        compile: whether networks are compiled (``torch.compile``) where they run as they are: the training of the
            original and of what was decided, and fine-tuning. Where that fails, it is said, and they run as written.
        distill: weight in [0, 1] of what the original says in the loss.
        loss_fn: ``loss_fn(outputs, targets)``; default that of the data's task: cross entropy for classes, binary
            cross entropy for labels, relative L2 error for fields, squared error for other values.
        seed: of everything that is drawn.
        tune: settings of fine-tuning that short trials on held-out samples choose from: ``"short"`` (six around the
            settings here), ``"paper"`` (24), ``"none"``, or a grid of your own with any of ``lr``, ``weight_decay``,
            ``momentum`` and ``dropout``, such as ``{"lr": [0.1, 0.01]}``. By default what the search method declares.
        tune_epochs: epochs of a trial; default a fifth of ``finetune_epochs``.
        tune_samples: share of the training samples in an epoch of a trial, others in each; at least a batch.
        trial_workers: trials that run side by side, in processes of their own. Python starts these by importing the
            main script anew, so a script needs ``if __name__ == "__main__":`` for more than one.

    >>> Training(finetune_epochs=20, lr=0.01).finetune_epochs
    20
    """

    search_epochs: int | None = option(None, EPOCHS, "Epochs of a search that trains.")
    loss_fn: Callable[[Any, Tensor], Tensor] | None = option(None, Called("loss_fn(outputs, targets)"), "The loss.")


@dataclass(frozen=True, kw_only=True)
class Scope(ScopeOptions):
    """Which parts of a model may change, and how far.

    Attributes:
        include, exclude: shell-style patterns over module names; a text by itself is one pattern.
        keep: least widths by pattern over module names, such as ``{"layer4*": "50%", "conv1": 16}``; of several that
            match a layer the largest holds. Blocks with such a layer are not taken out.
        choose: the channels that layers keep, no more and no less, such as ``{"layer1.0.conv1": [0, 3, 5]}``; layers
            that share their channels keep the same.
        keep_outputs: patterns of modules whose outputs keep all channels.
        absorb: whether, without data, biases and batch norms take up the mean of channels that go, as far as trained
            batch norms tell it; see ``compressor.trim.absorbed``. With data they are measured anew.
        round_to: keep widths at multiples of this; 1 allows any. Default: at even ones, of the largest power of two up
            to 16 that is at most an eighth of a width, which runtimes compute fastest, as far as budgets can be met so;
            with a latency budget at those that the target likes.

    >>> Scope(exclude="head*", keep={"conv1": 16}).exclude
    ('head*',)
    """

    keep: Any = option((), LeastWidths(), "Least widths of layers.")
    choose: Mapping[str, Any] | None = option(None, ChosenChannels(), "Channels that layers keep.")
    keep_outputs: Sequence[str] = option((), Patterns(), "Modules whose outputs keep all channels.")


_O = TypeVar("_O", bound=Options)


def gathered(name: str, given: _O | None, default: _O, former: dict[str, Any], *, stacklevel: int) -> _O:
    """``given``, or what former keywords say, taken out of ``former``.

    Args:
        name: of the argument that takes it, for messages.
        default: an instance with nothing but defaults.

    Raises:
        UsageError: ``given`` is something else, or stands beside former keywords for it.
    """
    kind = type(default)
    if given is not None and not isinstance(given, kind):
        raise UsageError(f"{name} must be a compressor.{kind.__name__}, not {shown(given)}.")
    loose = {each.name: former.pop(each.name) for each in fields(kind) if each.name in former}
    if not loose:
        return default if given is None else given
    listed = ", ".join(f"{each}=..." for each in loose)
    if given is not None:
        raise UsageError(f"{listed} is a part of {name}; give it there alone: compressor.{kind.__name__}({listed}).")
    warnings.warn(
        f"{listed} as arguments of their own are deprecated; pass {name}=compressor.{kind.__name__}({listed}).",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
    return replace(default, **loose)


def former_lut(former: dict[str, Any], *, stacklevel: int) -> Any:
    """``lut=``, which is a part of ``target`` now, taken out of ``former``."""
    if "lut" in former and former["lut"] is not None:
        warnings.warn(
            "lut=... as an argument of its own is deprecated; pass target=compressor.TargetSettings(target, lut).",
            DeprecationWarning,
            stacklevel=stacklevel,
        )
    return former.pop("lut", None)


def refuse_unknown(function: str, former: Mapping[str, Any]) -> None:
    """Raise ``TypeError``, as Python does, for arguments that there are not."""
    if former:
        raise TypeError(f"{function}() got an unexpected keyword argument {next(iter(former))!r}")
