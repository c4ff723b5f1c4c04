"""What a search method declares before it is loaded: its options, what it decides, and where its code is.

Nothing here imports torch: the command line lists every method's options and refuses bad ones before anything heavy is
loaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.errors import UsageError
from compressor.options import Options, Whole, option, shown

if TYPE_CHECKING:
    from compressor.graph.graph import Graph


@dataclass(frozen=True)
class MethodConfig(Options):
    """Base of a method's options. Their declarations are the checks, the command line and the tables in the docs.

    A method that trains (``TrainedConfig``) has ``epochs`` and ``batch_size``, and takes them from the job where they
    are not given. ``not_in_own_loop`` says which options a training loop of the user's own cannot have, and why.
    """

    not_in_own_loop: ClassVar[Mapping[str, str]] = {}
    rates: ClassVar[Mapping[str, float]] = {}
    """By optimizer of the weights, what an ``lr`` of None stands for; without any it is the job's rate."""

    @property
    def decides(self) -> frozenset[str]:
        """What is decided on: of ``"width"``, ``"depth"``, ``"kernel"``, ``"resolution"``, ``"squeeze"`` and the kinds
        of choices."""
        return frozenset({"width", "depth"} if getattr(self, "depth", True) else {"width"})

    def choice_options(self, include: Sequence[str], exclude: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """What the finders of choices are told, by kind; ``include`` and ``exclude`` are the job's patterns."""
        return {}

    def require(self, graph: Graph) -> None:
        """Raise ``UsageError`` if a network has nothing of what is asked to be decided on, with the reason."""

    @property
    def growth(self) -> int:
        """How many times as wide and as deep as the model the network is that is searched in."""
        return 1


@dataclass(frozen=True)
class TrainedConfig(MethodConfig):
    """Base of the options of a method that trains; its learning rate is its own to declare, as ``lr``."""

    epochs: int = option(3, Whole(), "Epochs of the search; --search-epochs.")
    batch_size: int = option(64, Whole(1), "Samples in a batch; --batch-size.")
    max_steps: int | None = option(None, Whole(1), "Most steps of the search.")


@dataclass(frozen=True)
class Method:
    """A search method by its declaration; calling it loads and makes the method (see ``search.base.SearchMethod``).

    Attributes:
        name: as ``--search`` takes it.
        config: the class of its options.
        implementation: ``"module:class"``, imported on first use.
        trains: whether it learns from data and changes the weights of the model that it searches in.
        ranked_by: the option that says by which measure it ranks, if it ranks.
        own_loop: whether it can run in a training loop of the user's own.
        improves: whether it looks for a better network even where every budget holds already.
        points: whether one search finds networks for many budgets (``SearchResult.points``).
        distils: whether networks in it learn from each other's outputs, whatever ``--distill`` says.
        continues: whether fine-tuning goes on with the schedule of its training, as one run.
        tune: the grid of fine-tuning's settings that ``--tune auto`` tries after it: ``"none"``, ``"short"`` or
            ``"paper"``.
    """

    name: str
    config: type[MethodConfig]
    implementation: str
    trains: bool
    ranked_by: str | None = None
    own_loop: bool = False
    improves: bool = False
    points: bool = False
    distils: bool = False
    continues: bool = False
    tune: str = "none"

    def __post_init__(self) -> None:
        if self.tune not in ("none", "short", "paper"):
            raise UsageError(f"tune of the method {self.name} must be none, short or paper, not {shown(self.tune)}.")

    def __call__(self) -> Any:
        module, _, attribute = self.implementation.partition(":")
        return getattr(importlib.import_module(module), attribute)()

    def read(self, options: Mapping[str, Any]) -> MethodConfig:
        """The options, checked. Raises ``UsageError`` for what it does not have or take."""
        return self.config.from_options(options)

    def for_own_loop(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """The options of a loop that computes the whole network. Raises ``UsageError`` for what it cannot have."""
        if options is not None and not isinstance(options, Mapping):
            raise UsageError(f"options must be a mapping of names to values, not {shown(options)}.")
        for name, why in self.config.not_in_own_loop.items():
            if name in (options or {}):
                raise UsageError(f"{name} is for compressor.compress, not for a loop of your own: {why}.")
        given = dict(options or {})
        if "live" in self.config.not_in_own_loop:
            given["live"] = False
        return given
