"""What one forward pass did, as searches, costs, masks and trims use it.

``Graph`` is plain data: units that can be removed, axes made of units, and lists of what depends on them. It holds no
tensors and no reference to the model, so it can be kept as long as wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.arrays import BoolArray, FloatArray
from compressor.graph.axis import Axis
from compressor.graph.groups import Alternatives, Group

if TYPE_CHECKING:
    from compressor.graph.inputs.input_axes import InputAxes
    from compressor.graph.inputs.retrace import Retrace
    from compressor.graph.operators import Operator
    from compressor.graph.stages import Stages


@dataclass(eq=False)
class Parameter:
    """A parameter or buffer. ``axes`` has ``None`` where nothing can change; ``names`` lists all its names (tied)."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[Axis | None, ...]
    names: tuple[str, ...]
    is_buffer: bool
    reached: bool
    scale: tuple[Axis, int] | None = None
    """A choice by which the number of its elements grows: the length of this axis, over what it is for ``shape``."""


@dataclass(eq=False)
class ProductTerm:
    """``coefficient`` times the product of the lengths of ``axes``; ``gates`` are the blocks it lies in.

    It is only there if one of ``unless_full`` is shorter than it can be. ``node`` is the operator call that it counts.
    """

    coefficient: float
    axes: tuple[Axis, ...]
    kind: str
    place: str
    gates: tuple[int, ...] = ()
    unless_full: tuple[Axis, ...] = ()
    node: int = -1


@dataclass(eq=False)
class Storage:
    """An activation buffer: ``bytes`` times the lengths of ``axes``, alive from operator ``birth`` to ``death``.

    One that ``continues`` is the buffer of another storage, from where on it depends on other blocks.
    """

    bytes: float
    axes: tuple[Axis, ...]
    birth: int
    death: int
    gates: tuple[int, ...] = ()
    unless_full: tuple[Axis, ...] = ()
    continues: bool = False


@dataclass(eq=False)
class ParameterMask:
    """Where masks act: ``parameter`` is multiplied, along each of its listed axes, by the mask of that axis."""

    parameter: str
    axes: tuple[tuple[int, Axis], ...]


@dataclass(eq=False)
class ComputedWeight:
    """A weight that the forward computes from ``parameters``, as the argument of one call.

    See ``graph/analysis/effective``."""

    place: str
    function: str
    ordinal: int
    argument: int | str
    shape: tuple[int, ...]
    axes: tuple[Axis | None, ...]
    parameters: tuple[str, ...]


@dataclass(eq=False)
class Site:
    """A function call of the program at which the masked model computes otherwise; see ``masks/sites``.

    ``axis`` is the axis whose mask the handler gets; one of kind "gate" or "squeeze" has none and gets a block's gate.
    """

    kind: str
    place: str
    function: str
    ordinal: int
    axis: Axis | None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class AttributeUse:
    """An integer attribute of a module that is ``offset + factor`` times the length of ``axis``; the trim sets it."""

    module: str
    name: str
    index: int | str | None
    axis: Axis
    offset: float = 0.0
    factor: float = 1.0


@dataclass(eq=False)
class Order:
    """A buffer (``attribute`` is empty) or an attribute of a module whose entries are positions along ``target``."""

    name: str
    attribute: str
    entries: Axis
    target: Axis


@dataclass(eq=False)
class Block:
    """A branch that can be taken out, with the same shape before and after.

    Of ``component`` "depth" it is a residual one, ``x + branch(x)``, or one of several operators that are summed or
    concatenated (``Parallel``); of "squeeze" a factor, ``x * branch(x)``.

    Attributes:
        add: the node of the addition.
        nodes: the nodes that go with the branch.
        modules: names of the modules that go.
        parameters: names of the parameters and buffers that go.
        removal: what replaces each module (and each parameter of a module that stays), see ``compressor.nn.stubs``.
        gated: parameters that scale the branch's output when all are multiplied by the gate; if there are none, a
            site multiplies the output itself.
        groups: groups whose units all lie in the branch.
        outputs: units that are there with the block alone: the channels of one that is concatenated. In all axes they
            count with its gate, and its gate acts on nothing else.
        beside: whether it is one of several operators side by side.
        inside: the blocks around it; when one of them goes, so does this.
        component: what of an architecture a method decides on with it, as ``MethodConfig.decides`` names it.
        tail: modules behind the branch that go with it, because they change nothing in what is left of the sum. Another
            activation in their place might.
    """

    index: int
    name: str
    add: int
    nodes: tuple[int, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    removal: dict[str, str] = field(default_factory=dict)
    gated: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    inside: tuple[int, ...] = ()
    component: str = "depth"
    tail: tuple[str, ...] = ()
    outputs: tuple[int, ...] = ()
    beside: bool = False


@dataclass(frozen=True)
class Parallel:
    """Blocks that are operators side by side; one at least stays unless one of the blocks around (``inside``) goes.

    The first one, which has the fewest parameters, stays where nothing else says which.
    """

    blocks: tuple[int, ...]
    inside: tuple[int, ...] = ()


@dataclass(eq=False)
class Resolution:
    """A block's branch that may compute on fewer samples; ``axes`` are its spatial axes.

    What the modules ``inputs`` are given is resampled to the lengths of these, what ``output`` returns back.
    ``kernels`` are the weights of its convolutions that look further than one sample.
    """

    block: int
    inputs: tuple[str, ...]
    output: str
    axes: tuple[Axis, ...]
    kernels: tuple[str, ...] = ()


@dataclass(eq=False)
class Collapse:
    """A module that does nothing once all of ``blocks`` are gone; ``kind`` is what then replaces it."""

    module: str
    kind: str
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """One run of a module: operator calls ``start`` up to ``end``, and the shape of the tensor it returned, if any."""

    start: int
    end: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fixed:
    """Channels that will not be removed, with the operator that forbids it."""

    place: str
    operator: str
    reason: str
    channels: int


@dataclass(eq=False)
class Graph:
    """See the module docstring. Sizes of everything are for batch 1."""

    model_class: str
    n_units: int
    axes: list[Axis]
    parameters: dict[str, Parameter]
    groups: list[Group]
    blocks: list[Block]
    products: list[ProductTerm]
    storages: list[Storage]
    masks: list[ParameterMask]
    sites: list[Site]
    attributes: list[AttributeUse]
    fixed: list[Fixed]
    input_shapes: list[tuple[int, ...]]
    on_meta: bool
    seconds: float
    inputs: InputAxes | None = None
    """Along which axes the batch lies, if the trace had to know or was told; else ``find_batch`` looks."""
    gradients: bool = False
    """Whether the forward takes gradients itself and leaves it to the caller to switch them on."""
    parallels: list[Parallel] = field(default_factory=list)
    """Of which operators one has to stay, those of outer ones first."""
    collapses: list[Collapse] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    whole_kernels: dict[str, str] = field(default_factory=dict)
    """Convolutions whose kernels cannot be cropped, with the reason; empty unless ``capture`` was asked to look."""
    orders: list[Order] = field(default_factory=list)
    resolutions: list[Resolution] = field(default_factory=list)
    whole_resolutions: dict[str, str] = field(default_factory=dict)
    """Blocks whose resolution cannot be lowered, with the reason; likewise."""
    computed: list[ComputedWeight] = field(default_factory=list)
    """Weights in use that are none of the tensors stored."""
    shortcuts: tuple[str, ...] = ()
    """Modules of convolutions that project a shortcut."""
    heads: tuple[str, ...] = ()
    """Modules of convolutions that write an output of the network."""
    no_choice: dict[str, str] = field(default_factory=dict)
    """Modules that a finder of choices left alone, with the reason."""
    spans: dict[str, Span] = field(default_factory=dict)
    """Modules that ran once."""
    ran: tuple[str, ...] = ()
    """Modules that ran, in the order of their first use."""
    written: tuple[str, ...] = ()
    """Parameters and buffers, by every name, that the forward changes in place."""
    retrace: Retrace | None = None
    """How to trace a changed copy of the model alike; ``None`` where the inputs hold more than tensors and numbers."""
    stages: Stages | None = None
    """Where the resolution falls along the network, once choices of where to pool were looked for."""
    remarks: list[str] = field(default_factory=list)
    """What users should know of it, in whole sentences."""

    def group(self, name: str) -> Group:
        """The group of that name. Raises ``KeyError``."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def all_units(self) -> BoolArray:
        """A unit mask that keeps everything, and of choices what the network has: ``n_units`` entries and the last,
        constant one."""
        units = np.ones(self.n_units + 1, dtype=np.bool_)
        for choice in self.choices:
            units[choice.units] = choice.as_it_is
        return units

    @property
    def choices(self) -> list[Alternatives]:
        """The groups of which exactly one unit survives."""
        return [group for group in self.groups if isinstance(group, Alternatives)]

    def grow_units(self, count: int) -> None:
        """Make room for ``count`` more units; what is always kept gets another number."""
        before, self.n_units = self.n_units, self.n_units + count
        for axis in self.axes:
            axis.factors = np.where(axis.factors == before, self.n_units, axis.factors)

    def gates(self, kept: BoolArray | None, priority: FloatArray | None = None) -> BoolArray:
        """Which blocks are there if ``kept`` (default all) are to be, shape (n_blocks,).

        Inner blocks go with outer ones. Of operators side by side that all would go, the one of the highest
        ``priority``, shape (n_blocks,), stays; by default the smallest.
        """
        if kept is None:
            return np.ones(len(self.blocks), dtype=np.bool_)
        wished = np.array(kept, dtype=np.bool_)

        def there(b: int) -> bool:
            return bool(wished[b]) and all(wished[i] for i in self.blocks[b].inside)

        for each in self.parallels:
            if all(wished[i] for i in each.inside) and not any(there(b) for b in each.blocks):
                best = each.blocks[0] if priority is None else max(each.blocks, key=lambda b: float(priority[b]))
                wished[best] = True
        return np.array([there(b.index) for b in self.blocks], dtype=np.bool_)

    def spare(self, gates: BoolArray) -> BoolArray:
        """Which of the blocks that are there could go: all but the last of operators side by side."""
        found = gates.copy()
        for each in self.parallels:
            left = [b for b in each.blocks if gates[b]]
            if len(left) == 1:
                found[left] = False
        return found

    @property
    def channels(self) -> int:
        """Channels the network writes: the indices of axis 0 of all its weights."""
        return sum(p.shape[0] for p in self.parameters.values() if len(p.shape) > 1 and not p.is_buffer)
