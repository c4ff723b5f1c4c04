"""Settings of DNArch, and which components of a model they let it learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from compressor.errors import UsageError
from compressor.graph.graph import Graph

COMPONENTS = ("width", "depth", "kernel", "resolution")
KINDS = {"width": "channels", "kernel": "kernel", "resolution": "resolution"}  # groups by component

WIDTH_TAU, DEPTH_TAU = 25.0, 8.0  # of networks that do not grow


@dataclass(frozen=True)
class DnarchConfig:
    """Settings of the search; the training's own are ``TrainConfig``'s."""

    epochs: int = 3
    batch_size: int = 64
    lr: float = 0.01
    """Of the weights (cosine schedule)."""
    optimizer: str | None = None
    """Of the weights: "sgd" (with momentum) or "adamw"; None: sgd, and adamw where a network computes the kernels."""
    mask_lr: float | None = None
    """Of the masks' offsets (``MaskAdam``); None: 8 / (steps in which masks learn), between 0.003 and 0.05. It falls to
    0 over the last of those steps."""
    learn: tuple[str, ...] | None = None
    """Components to learn, of "width", "depth", "kernel" and "resolution"; None: all that the model has."""
    width_tau: float | None = None
    """Steepness of the masks over channels; None: 25 times ``grow``, so that the edge of a mask spans as many channels
    as in the network to start from. At 25 a layer keeps at least 10.3 % of its channels, at 50 5.1 %."""
    depth_tau: float | None = None
    """Steepness of the masks over blocks; None: 8 times ``grow``. At 8 at least 32 % of the blocks stay, at 16 16 %."""
    resolution_tau: float = 25.0
    """Steepness of the masks over frequencies. At 25 a branch keeps at least 10.3 % of its samples along an axis, at 50
    5.1 %, at 100 2.6 %."""
    depth_over: str = "network"
    """"network": one mask over all removable blocks; "stage": one for the blocks on each residual stream."""
    order: str | None = None
    """What goes last: "magnitude" or "taylor" importance, or "none" for the order in which things stand. None: by
    magnitude, and in networks that may grow as they stand, as their weights say nothing yet, and what one part
    writes first is what the next reads first."""
    penalty: float | None = None
    """Fixed weight of ``(cost / budget - 1)^2``, as in the paper (0.1 to 5); None: automatic multipliers."""
    penalty_ramp: float = 0.0
    """Share of the steps before the decision over which the fixed weight rises from zero."""
    grow: int = 1
    """The network is this many times as wide and as deep as the one to start from: widths and depth start at that
    share of it, and can grow as well as shrink."""
    live: bool = True
    """Whether only what the masks keep is computed; the result is the same up to rounding."""
    compiler: str | None = None
    """Backend of ``torch.compile``, such as "inductor", for what is computed live; not with a learned resolution."""
    reach: float = 0.1
    """Share of the steps after which the cost is asked to be at the budget; less where that is above half of the cost
    to start from, in proportion to how far there is to go."""
    settle: float = 0.6
    """Share of the steps, the last, that train the network decided on; masks learn in those before."""
    every: int = 2
    """Masks learn in one of so many steps; in the others only the weights do, which is cheaper."""
    max_steps: int | None = None

    def __post_init__(self) -> None:
        choices_of = {
            "depth_over": ("network", "stage"),
            "order": (None, "magnitude", "taylor", "none"),
            "optimizer": (None, "sgd", "adamw"),
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} must be one of {', '.join(filter(None, choices))}, not {getattr(self, name)!r}."
                )
        for name in ("width_tau", "depth_tau", "resolution_tau"):
            tau = getattr(self, name)
            if tau is not None and not tau > 5:
                raise UsageError(f"{name} must be above 5, not {tau!r}; below, no mask can shrink.")
        if not (isinstance(self.grow, int) and self.grow >= 1):
            raise UsageError(f"grow must be a whole number of at least 1, not {self.grow!r}.")
        if not (isinstance(self.every, int) and self.every >= 1):
            raise UsageError(f"every must be a whole number of at least 1, not {self.every!r}.")
        if not 0 <= self.settle < 1:
            raise UsageError(f"settle must be a share of the steps, from 0 to below 1, not {self.settle!r}.")
        if self.penalty is not None and not self.penalty > 0:
            raise UsageError(f"penalty must be above zero, not {self.penalty!r}; leave it out for multipliers.")
        if not 0 <= self.penalty_ramp <= 1 or (self.penalty_ramp and self.penalty is None):
            raise UsageError(f"penalty_ramp must be a share of the steps, beside a penalty; not {self.penalty_ramp!r}.")
        if self.compiler is not None and not self.live:
            raise UsageError("compiler is for what is computed live; leave it out, or live on.")
        if isinstance(self.compiler, str):
            _check_compiler(self.compiler)
        for name in self.learn or ():
            if name not in COMPONENTS:
                raise UsageError(f"dnarch cannot learn {name!r}; it learns {', '.join(COMPONENTS)}.")
        if self.learn is not None and not self.learn:
            raise UsageError(f"learn is empty; name components to learn, of {', '.join(COMPONENTS)}.")

    @property
    def taus(self) -> tuple[float, float]:
        """Steepness of the masks over channels and over blocks."""
        return self.width_tau or WIDTH_TAU * self.grow, self.depth_tau or DEPTH_TAU * self.grow

    @property
    def importance(self) -> str | None:
        """The measure that things are ordered by; ``None`` for none."""
        order = self.order or ("magnitude" if self.grow == 1 else "none")
        return None if order == "none" else order

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> DnarchConfig:
        """Read options; ``learn`` may be a text such as "width,depth". Raises ``UsageError`` for unusable ones."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise UsageError(f"dnarch has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        values = dict(options)
        if isinstance(values.get("learn"), str):
            values["learn"] = [part.strip() for part in values["learn"].split(",") if part.strip()]
        if values.get("learn") is not None:
            values["learn"] = tuple(dict.fromkeys(values["learn"]))
        return cls(**values)

    def components(self, graph: Graph) -> set[str]:
        """What is learned of this model. Raises ``UsageError`` for a component that it does not have."""
        kinds = {group.kind for group in graph.groups}
        there = {name: kind in kinds for name, kind in KINDS.items()} | {"depth": bool(graph.blocks)}
        why = {
            "width": "every channel is held fixed",
            "depth": "it has no residual block that can be taken out",
            "kernel": why_whole(graph.whole_kernels, " has ") or "it has no convolution with a kernel above 1",
            "resolution": why_whole(graph.whole_resolutions, ": ") or "it has no residual block that can be taken out",
        }
        for name in self.learn or ():
            if not there[name]:
                have = ", ".join(c for c in COMPONENTS if there[c]) or "nothing to learn"
                raise UsageError(f"{graph.model_class} has no {name} to learn: {why[name]}. It has {have}.")
        return {name for name in self.learn or COMPONENTS if there[name]}


def _check_compiler(name: str) -> None:
    from torch.compiler import list_backends

    if name not in list_backends(exclude_tags=()):
        usual = ", ".join(list_backends())
        raise UsageError(f"torch.compile has no backend {name!r} here; it has {usual}.")


def why_whole(reasons: Mapping[str, str], verb: str) -> str:
    """Why nothing of this kind can change, by the first few."""
    found = [f"{place or 'the model'}{verb}{reason}" for place, reason in reasons.items()]
    return ", ".join(found[:2]) + (f" and {len(found) - 2} more" if len(found) > 2 else "")
