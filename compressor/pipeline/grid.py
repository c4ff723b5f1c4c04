"""Grids of settings for fine-tuning: how they are written, and which settings they stand for.

Nothing here imports torch: the command line refuses a bad grid before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from compressor.errors import UsageError
from compressor.options import Kind, Number, read, schema_of, shown
from compressor.options.shared import LR, LRS

AXES: dict[str, Number] = {
    "lr": LR,
    "weight_decay": Number(least=0),
    "momentum": Number(least=0, below=1),
    "dropout": Number(least=0, below=1),
}
"""What a grid may vary, in the order in which it is gone through, the last the fastest."""
NAMES = ("auto", "none", "short", "paper")
MOST_TRIALS = 1000

_PAPER: dict[str, tuple[float, ...]] = {
    "lr": (1e-1, 1e-2, 1e-3),
    "weight_decay": (5e-4, 5e-6),
    "momentum": (0.9, 0.99),
    "dropout": (0.0, 0.05),
}
"""The configuration space of Shen et al., "Efficient Architecture Search for Diverse Tasks", 2022, appendix A.5.2."""

Grid = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Hyperparameters:
    """What fine-tuning is told by a point of a grid.

    Attributes:
        lr: peak learning rate, as ``--lr`` has it.
        weight_decay, momentum: of the optimizer.
        dropout: the rate of every dropout module; None leaves them as they are.
    """

    lr: float
    weight_decay: float
    momentum: float
    dropout: float | None = None

    def __str__(self) -> str:
        dropout = "" if self.dropout is None else f", dropout {self.dropout:g}"
        return f"lr {self.lr:.4g}, weight decay {self.weight_decay:g}, momentum {self.momentum:g}{dropout}"


@dataclass(frozen=True)
class Numbers:
    """One number or several of a kind, as a sequence or separated by commas; repetitions go."""

    each: Kind

    @property
    def expected(self) -> str:
        return f"{self.each.expected}, or several"

    def schema(self) -> dict[str, Any]:
        each = schema_of(self.each)
        return {"anyOf": [each, {"type": "array", "items": each, "minItems": 1}, {"type": "string"}]}

    def read(self, value: Any) -> tuple[float, ...]:
        """All of them, in order. Raises ``ValueError``."""
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if isinstance(parts, (int, float)):
            parts = [parts]
        if not isinstance(parts, Sequence) or isinstance(parts, (str, bytes)) or not parts:
            raise ValueError
        return tuple(dict.fromkeys(self.each.read(part) for part in parts))


@dataclass(frozen=True)
class Tune:
    """The name of a grid or a grid of the user's own; ``read_grid`` looks into the latter."""

    expected: ClassVar[str] = f"one of {', '.join(NAMES)}, or a mapping such as {{'lr': [0.1, 0.01]}}"
    choices: ClassVar[list[str]] = list(NAMES)

    def schema(self) -> dict[str, Any]:
        axes = {name: Numbers(kind).schema() for name, kind in AXES.items()}
        grid = {"type": "object", "properties": axes, "additionalProperties": False, "minProperties": 1}
        return {"anyOf": [{"enum": list(NAMES)}, grid]}

    def read(self, value: Any) -> str | dict[Any, Any]:
        """The name, or a copy of the mapping. Raises ``ValueError``."""
        if isinstance(value, Mapping):
            return dict(value)
        if not isinstance(value, str) or value not in NAMES:
            raise ValueError
        return value


def read_grid(tune: str | Mapping[Any, Any]) -> str | Grid:
    """A name as it is; the values of a mapping as tuples of numbers.

    Raises:
        UsageError: the grid is empty or too large, or has a key or value that there is not; by name, ``tune.lr``.
    """
    if isinstance(tune, str):
        return tune
    if strange := [name for name in tune if name not in AXES]:
        raise UsageError(f"tune has no {shown(strange[0])}; a grid may have {', '.join(AXES)}.")
    if not tune:
        raise UsageError(f"tune is an empty grid, so there is nothing to try; give it values of {', '.join(AXES)}.")
    grid = {name: read(f"tune.{name}", Numbers(AXES[name]), tune[name]) for name in AXES if name in tune}
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MOST_TRIALS:
        raise UsageError(f"tune is a grid of {count} trials; at most {MOST_TRIALS} are tried, so give it fewer values.")
    return grid


def require_finetuning(tune: str | Mapping[str, Any], finetune_epochs: int) -> None:
    """Raise ``UsageError`` if a grid was asked for and there is no fine-tuning that it could be for."""
    if tune not in ("auto", "none") and not finetune_epochs:
        raise UsageError(
            "tune chooses settings of fine-tuning, and there is none: pass data and finetune_epochs (--data and "
            "--finetune-epochs) of at least 1, or leave tune out."
        )


def grid_points(
    tune: str | Grid, own: Hyperparameters, *, momentum: bool = True, dropout: bool = True, optimizer: str = "sgd"
) -> list[Hyperparameters]:
    """The points of a grid, each once.

    Args:
        tune: ``"short"`` has six around ``own``, the first being ``own``; ``"paper"`` has 24; or a grid.
        own: what fine-tuning would be told without a grid, and what is taken where a grid says nothing.
        momentum, dropout: whether these do anything to the network; without, the grid has ``own``'s.
        optimizer: rates of ``"paper"`` are of SGD; those of another are as much smaller as its usual one is.
    """
    if isinstance(tune, str):
        short = {"lr": (own.lr, own.lr / 3, own.lr / 10), "weight_decay": (own.weight_decay, own.weight_decay / 100)}
        scale = LRS[optimizer] / LRS["sgd"]
        paper = {**_PAPER, "lr": tuple(rate * scale for rate in _PAPER["lr"])}
        tune = paper if tune == "paper" else short
    idle = {name for name, acts in (("momentum", momentum), ("dropout", dropout)) if not acts}
    axes = [tune[name] if name in tune and name not in idle else (getattr(own, name),) for name in AXES]
    return list(dict.fromkeys(Hyperparameters(*point) for point in product(*axes)))
