"""The search dimensions of a traced network: what its subnets differ in.

A dimension is a row of choices in ascending order (Boundary learning, section 2). Widths, depths and kernels are
nested: what a choice keeps, every larger one keeps, too. Kernels, activations and squeeze-and-excite modules of one
stage have one choice together, as in the paper's spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from torch import nn

from compressor.arrays import BoolArray, FloatArray, IntArray
from compressor.errors import UnsupportedModelError
from compressor.graph.graph import Block, Graph
from compressor.graph.groups import Alternatives, Group
from compressor.search.constraints.projector import Projector
from compressor.search.methods.supernet.config import SupernetConfig

_T = TypeVar("_T")
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Dimension:
    """One row of choices.

    Attributes:
        name: of the layer or stage.
        kind: ``"width"``, ``"depth"``, ``"kernel"``, ``"squeeze"`` or the kind of a choice.
        labels: what each choice is, such as 16 channels, ascending.
        shares: each choice as a share of the largest.
        units: the graph's units that it decides on.
        unit_from: for each, the first choice that keeps it; the only one if the dimension is not ``nested``.
        blocks, block_from: likewise for blocks.
    """

    name: str
    kind: str
    labels: tuple[int | str, ...]
    shares: tuple[float, ...]
    units: IntArray = field(default_factory=_NONE.copy)
    unit_from: IntArray = field(default_factory=_NONE.copy)
    blocks: IntArray = field(default_factory=_NONE.copy)
    block_from: IntArray = field(default_factory=_NONE.copy)
    nested: bool = True

    def __len__(self) -> int:
        return len(self.labels)


def find_dimensions(
    model: nn.Module, projector: Projector, config: SupernetConfig, scores: FloatArray
) -> list[Dimension]:
    """All dimensions, widths first.

    Args:
        scores: importance of every unit, shape (n_units,): what narrow networks keep.

    Raises:
        UnsupportedModelError: there is none.
    """
    graph = projector.graph
    gone_with = {g for block in graph.blocks if block.component == "squeeze" for g in block.groups}
    rows = depth_rows(graph, projector.removable)
    stages = Stages(model, rows)
    free = [
        group
        for group in graph.groups
        if group.index not in projector.held
        and projector.smallest[group.index] < projector.most[group.index]
        and group.index not in gone_with
    ]
    found = [_width(projector, group, config.choices, scores) for group in free if group.kind == "channels"]
    found += [_depth(stages.of_row(row), row, config.choices) for row in rows]
    found += _kernels(graph, stages, [group for group in free if group.kind == "kernel"], config.smallest_kernel)
    squeezes = [b for b in graph.blocks if b.component == "squeeze" and projector.removable[b.index]]
    found += [_squeeze(name, blocks) for name, blocks in _by_stage(stages, squeezes, lambda b: b.name)]
    choices = list(projector.free_choices)
    found += [_choice(name, same) for name, same in _by_stage(stages, choices, lambda c: c.name, lambda c: _offered(c))]
    found = [dimension for dimension in found if len(dimension) > 1]
    if not found:
        raise UnsupportedModelError(
            f"Subnets of {graph.model_class} would not differ in anything: no {', '.join(sorted(config.learn))} is "
            "free to change ('compress inspect' says what is held fixed); choose other dimensions with "
            "--supernet.learn."
        )
    return found


def depth_rows(graph: Graph, removable: BoolArray) -> list[list[Block]]:
    """The residual blocks that may go, by the stream that they are on, in the order in which they run."""
    rows: dict[object, list[Block]] = {}
    for block in graph.blocks:
        if removable[block.index] and block.component == "depth":
            axis = next((graph.parameters[name].axes[0] for name in block.gated if graph.parameters[name].axes), None)
            stream: object = axis.index if axis is not None else block.name.rpartition(".")[0]
            rows.setdefault((stream, block.inside), []).append(block)
    return list(rows.values())


class Stages:
    """Which modules belong together: the module that holds all blocks on a stream, and no block of another."""

    def __init__(self, model: nn.Module, rows: Sequence[Sequence[Block]]) -> None:
        self._modules = dict(model.named_modules())
        names = [[block.name.partition("#")[0] for block in row] for row in rows]
        self._row_names: dict[int, str] = {}
        self._places: list[str] = []
        for i, own in enumerate(names):
            others = [name for j, each in enumerate(names) if j != i for name in each]
            place = _around(own)
            if place and not any(_inside(name, place) for name in others):
                self._places.append(place)
                self._row_names[rows[i][0].index] = place
            else:
                self._row_names[rows[i][0].index] = own[0]
        self._places.sort(key=len, reverse=True)

    def of_row(self, row: Sequence[Block]) -> str:
        """The name of the stage that a row of blocks is."""
        return self._row_names[row[0].index]

    def of(self, name: str) -> str:
        """The stage of a module: the one it lies in, else the module around it, unless that is a mere container."""
        for place in self._places:
            if _inside(name, place):
                return place
        above = name.rpartition(".")[0]
        container = isinstance(self._modules.get(above), (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        return name if not above or container else above


def _around(names: Sequence[str]) -> str:
    """The innermost module around all of these, not one of them itself."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _inside(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def _by_stage(
    stages: Stages,
    items: Iterable[_T],
    name_of: Callable[[_T], str],
    also: Callable[[_T], object] = lambda item: None,
) -> list[tuple[str, list[_T]]]:
    """The items of each stage together, of those that have ``also`` the same."""
    found: dict[object, tuple[str, list[_T]]] = {}
    for item in items:
        stage = stages.of(name_of(item).partition("#")[0])
        found.setdefault((stage, also(item)), (stage, []))[1].append(item)
    return list(found.values())


def _steps(count: int, least: int, most: int) -> list[int]:
    """Up to ``count`` numbers from ``most / count`` to ``most``, evenly spaced and at least ``least``."""
    return sorted({max(least, round(most * (i + 1) / count)) for i in range(count)})


def _width(projector: Projector, group: Group, count: int, scores: FloatArray) -> Dimension:
    most, least = int(projector.most[group.index]), int(projector.smallest[group.index])
    counts = np.array([len(g) for g in projector.graph.groups], dtype=np.int64)
    kept = []
    for n in _steps(count, least, most):
        counts[group.index] = n
        kept.append(int(projector.allowed(counts)[group.index]))
    kept = sorted(set(kept))
    first = np.full(len(group), len(kept), dtype=np.int64)
    place = {int(unit): i for i, unit in enumerate(group.units)}
    for choice in reversed(range(len(kept))):
        first[[place[int(unit)] for unit in group.kept(kept[choice], scores)]] = choice
    labels = tuple(n * group.width for n in kept)
    return Dimension(group.name, "width", labels, tuple(n / kept[-1] for n in kept), group.units, first)


def _depth(name: str, row: Sequence[Block], count: int) -> Dimension:
    """The first blocks of a stage stay longest."""
    kept = [0, *_steps(count, 1, len(row))]
    first = np.searchsorted(np.array(kept), np.arange(1, len(row) + 1))
    return Dimension(
        name,
        "depth",
        tuple(kept),
        tuple(n / len(row) for n in kept),
        blocks=np.array([block.index for block in row], dtype=np.int64),
        block_from=first.astype(np.int64),
    )


def _kernels(graph: Graph, stages: Stages, groups: Sequence[Group], least: int) -> list[Dimension]:
    found = []
    for name, same in _by_stage(stages, groups, lambda group: group.members[0][0].rpartition(".")[0]):
        taps = {group.index: graph.parameters[group.members[0][0]].shape[group.members[0][1]] for group in same}
        sizes = sorted(
            {
                size
                for group in same
                for size in range(taps[group.index] - 2 * len(group), taps[group.index] + 1, 2)
                if size >= min(least, taps[group.index])
            }
        )
        units, first = [], []
        for group in same:
            # ``inwards`` has those that stay longest first: ring r of n is there from taps - 2 (n - 1 - r) on.
            n = len(group)
            units.append(group.inwards)
            needs = [taps[group.index] - 2 * (n - 1 - rank) for rank in range(n)]
            first.append(np.searchsorted(np.array(sizes), needs))
        found.append(
            Dimension(
                name,
                "kernel",
                tuple(sizes),
                tuple(size / sizes[-1] for size in sizes),
                np.concatenate(units),
                np.concatenate(first).astype(np.int64),
            )
        )
    return found


def _squeeze(name: str, blocks: Sequence[Block]) -> Dimension:
    indices = np.array([block.index for block in blocks], dtype=np.int64)
    return Dimension(name, "squeeze", ("no", "yes"), (0.0, 1.0), blocks=indices, block_from=np.ones_like(indices))


def _offered(choice: Alternatives) -> tuple[str, tuple[str, ...]]:
    return choice.of, tuple(alternative.name for alternative in choice.alternatives)


def _choice(name: str, choices: Sequence[Alternatives]) -> Dimension:
    labels = tuple(alternative.name for alternative in choices[0].alternatives)
    shares = tuple(i / (len(labels) - 1) for i in range(len(labels)))
    units = np.concatenate([choice.units for choice in choices])
    first = np.concatenate([np.arange(len(choice), dtype=np.int64) for choice in choices])
    return Dimension(name, choices[0].of, labels, shares, units, first, nested=False)
