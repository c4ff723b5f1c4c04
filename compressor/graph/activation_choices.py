"""Which activation each activation module is: ReLU or Swish, as in the MobileNetV3-like space of boundary learning
(table 2), on any backbone.

A site is a module; activations that are function calls have none. What the network has is always one of the
alternatives. Multiply-adds and parameters are the same whatever is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compressor.architecture.edits import ReplaceActivation, Work
from compressor.architecture.edits.replace_activation import ACTIVATIONS
from compressor.graph.choices import ChoiceSite
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternative
from compressor.graph.patterns import matches

OFFERED = ("relu", "silu")
"""At every site, the cheapest first; Swish is called SiLU in PyTorch."""


def find(
    model: nn.Module,
    graph: Graph,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    with_depth: bool = True,
) -> list[ChoiceSite]:
    """The sites, in the order of their first use. What has no choice is noted in ``graph.no_choice`` with the reason.

    Args:
        include: patterns over names; only these modules.
        exclude: patterns of modules that stay as they are.
        with_depth: whether residual blocks may go in the same search. Then activations behind a sum that go with its
            block stay as they are: a ReLU there changes nothing without the block, and a Swish would.
    """
    types = {kind: name for name, kind in ACTIVATIONS.items()}
    modules = Work(model).modules
    tails = {name for block in graph.blocks for name in block.tail} if with_depth else set[str]()
    sites = []
    for name in graph.ran:
        own = types.get(type(modules.get(name)))  # type: ignore[arg-type]
        if own is None:
            continue
        reason = _reason(name, tails, include, exclude)
        if reason is not None:
            graph.no_choice[name] = reason
            continue
        kinds = [*OFFERED, *([] if own in OFFERED else [own])]
        alternatives = [Alternative(kind, () if kind == own else (ReplaceActivation(name, kind),)) for kind in kinds]
        sites.append(ChoiceSite(name, alternatives, kinds.index(own)))
    return sites


def _reason(name: str, tails: set[str], include: Sequence[str], exclude: Sequence[str]) -> str | None:
    """Why an activation has no choice; None if it has one."""
    if not name:
        return "it is the model itself"
    if exclude and matches(name, exclude):
        return "excluded"
    if include and not matches(name, include):
        return "not included"
    return "a residual block goes together with it" if name in tails else None
