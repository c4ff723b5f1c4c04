"""Compute only what masks keep: the network as it would be trimmed now, on slices of the full weights.

The full weights stay the parameters. For every forward pass they are sliced to what is live and multiplied by the masks
where channels are read, inside the graph of autograd, so gradients reach the weights and the masks as they do with
masks on the full network. The slices stand in a trimmed copy of the modules, made anew when what is live changes. What
is dead has no mask to learn from (it is zero there), so nothing is lost.

The price of a step then follows the size of the network. Making the copy fit another choice takes as long as some steps
of a small network, so a choice stays as long as it has all that is live and little besides: what is dead in it is
multiplied by zero.

Batch norms of the copy keep running statistics of their own,
which nobody reads: a search ends with their recalibration.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Resample
from compressor.architecture.edits.set_sizes import set_size_
from compressor.arrays import BoolArray, IntArray
from compressor.errors import CompressorError
from compressor.graph.axis import Axis
from compressor.graph.gated import gated_units
from compressor.graph.graph import Graph, Parameter
from compressor.masks.bands import Bands
from compressor.masks.recompute import Pass, Passes
from compressor.masks.straight_through import hard
from compressor.nn import multihead, resampling
from compressor.nn.indexed_stream import tighten
from compressor.nn.tensors import Region, part, selection
from compressor.nn.walk import named_modules
from compressor.search.training.decided_network import FAILURES
from compressor.search.training.swapped_tensors import Shadows
from compressor.train.splits import call_model
from compressor.trim.apply import trim
from compressor.trim.plan import plan

# On several threads, and on a GPU, convolutions of ragged widths can take longer than the full ones.
EVEN = 8
SLACK = 0.015  # of the units may be dead in the copy
# Under torch.compile every other size is another compilation: sizes come in steps, and most of the units go at once.
STEPS = 8
COMPILED_SLACK = 0.25
MOST_BUILDS = 6  # then the copy is the whole network, until what is kept is decided

WeightSource = Callable[[Mapping[str, Region]], Mapping[str, Tensor]]


class NotLiveError(CompressorError):
    """The live network cannot be built or run."""


class _Slice:
    """How one parameter becomes what is live of it."""

    def __init__(self, parameter: Tensor, names: list[str]) -> None:
        self.parameter, self.names = parameter, names
        self.region: Region = {}
        self.masks: IntArray = np.zeros((0, 0), dtype=np.int64)  # for each entry of its factor, which of ``_pool``
        self.shape: tuple[int, ...] = ()  # of the factor; it is broadcast


class Live:
    """The live network of one model. ``works`` turns false when it cannot be built or run; masks do the same then.

    Groups that no weight reads (the depth of queries and keys) have nothing that takes up a soft mask: their mask is 1
    as far as it reaches, and its gradient is that of scaling the channels where they are written.

    Args:
        folds: soft masks will be multiplied into the weights, so those on frozen ones are 0 or 1.
        compiler: backend of ``torch.compile`` for the live network; compiled ``MOST_BUILDS + 2`` times at most, which
            is as often as torch.compile does by default.
    """

    def __init__(
        self, model: nn.Module, graph: Graph, compiler: str | Callable[..., Any] | None = None, *, folds: bool = False
    ) -> None:
        self.model, self.graph = model, graph
        self._compiled = compiler is not None
        self._run = torch.compile(call_model, backend=compiler, dynamic=False) if compiler is not None else call_model
        # Other gates act at calls, which need the masks.
        self.works = all(block.gated or block.outputs for block in graph.blocks)
        self.builds = 0
        self._built: tuple[BoolArray, BoolArray] | None = None
        self._final: tuple[BoolArray, BoolArray] | None = None  # what is kept, if it is decided and built
        self._bands = Bands(graph)
        self._device = next(model.parameters()).device
        even = EVEN if torch.get_num_threads() > 1 or self._device.type != "cpu" else 1
        lengths = np.array([len(group) for group in graph.groups], dtype=np.int64)
        steps = [even // np.gcd(even, g.width) if g.ranked else 1 for g in graph.groups]
        self._in_groups = (
            np.concatenate([np.zeros(0, dtype=np.int64), *(group.inwards for group in graph.groups)]),
            np.repeat(np.arange(len(lengths)), lengths),
            np.cumsum(lengths) - lengths,
            np.maximum(steps, -(-lengths // STEPS)) if self._compiled else np.array(steps, dtype=np.int64),
            lengths,
        )
        # Arithmetic across channels would take in what is dead in the copy.
        self.exactly = any(site.axis is not None for site in graph.sites)
        self._passes = Passes()
        self._copy: nn.Module = model
        self._copied: dict[str, nn.Module] = {}  # its modules by every name
        self._slices: list[_Slice] = []
        self._resting: tuple[Tensor, list[Tensor | None], list[tuple[str, str, Tensor]]] | None = None  # of which masks
        self._full: dict[str, Tensor] = {
            p.name: model.get_buffer(p.name) if p.is_buffer else model.get_parameter(p.name)
            for p in graph.parameters.values()
        }
        self._buffers: dict[str, Tensor] = {}
        self._modules: dict[str, tuple[nn.Module, nn.Module]] = {}  # (of the copy, of the model)
        self._blocks: bytes | None = None  # which blocks the copy has; None if it cannot be resized
        self._changed: dict[str, dict[str, Any]] = {}
        self._removed: set[str] = set()
        self._gated: dict[str, list[int]] = {}
        for block in graph.blocks:
            for name in block.gated:
                self._gated.setdefault(name, []).append(block.index)
        self._read: dict[str, list[tuple[int, Axis, bool]]] = {
            mask.parameter: [(d, axis, False) for d, axis in mask.axes] for mask in graph.masks
        }
        read = np.zeros(graph.n_units + 1, dtype=np.bool_)
        read[graph.n_units] = True
        for mask in graph.masks:
            for _, axis in mask.axes:
                read[axis.factors] = True
        for parameter in graph.parameters.values():
            written = parameter.axes[0] if parameter.axes and not parameter.is_buffer else None
            if written is not None and not read[written.factors].all(axis=1).any():
                self._read.setdefault(parameter.name, []).append((0, written, True))
        pooled = graph.n_units + 1 + len(graph.blocks)
        self._frozen = {n for n, p in self._full.items() if folds and not p.requires_grad}
        self._hard = pooled if self._frozen else 0  # where in ``_pool`` masks for frozen weights begin
        self._straight = pooled + self._hard  # where masks for gradients only begin
        self._takes_straight = any(for_gradient for axes in self._read.values() for _, _, for_gradient in axes)

    def state_dict(self) -> dict[str, Any]:
        built = None if self._built is None else [part.tolist() for part in self._built]
        return {"works": self.works, "built": built}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on with the same copy: sums over other zeros would differ in their last bits."""
        self.works = bool(state["works"])
        if state["built"] is not None:
            self._build(*(np.array(part, dtype=np.bool_) for part in state["built"]))

    def forward(
        self,
        inputs: Any,
        units: Tensor,
        gates: Tensor,
        near: Callable[[], Tensor] | None = None,
        kept: tuple[BoolArray, BoolArray] | None = None,
        weights: WeightSource | None = None,
        anew: Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> Any:
        """The model's output with masks ``units`` (n_units,) and ``gates`` (n_blocks,); zeros are not computed.

        Args:
            near: gives a mask of units that is above zero for those that may soon be live again, too.
            kept: compute exactly these units (n_units,) and blocks (n_blocks,) rather than what the masks say; all
                others have mask 0. Only without sites: zeros among them count in arithmetic across channels.
            weights: gives what stands in place of parameters, by name: of those it is asked for the regions.
            anew: gives the same masks with a history of their own, for what a backward computes again.

        Raises:
            NotLiveError: this choice cannot be built or run; ``works`` is false from now on.
        """
        try:
            return self._forward(inputs, units, gates, near, kept, weights, anew)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            self.works = False
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NotLiveError(
                f"The live network cannot be run ({reason}); masks do the same at the full cost."
            ) from error

    def call(self, model: nn.Module, inputs: Any) -> Any:
        """Run ``model``; compiled for training alone, as a trial without gradients would be another compilation."""
        return (self._run if torch.is_grad_enabled() else call_model)(model, inputs)

    def _forward(
        self,
        inputs: Any,
        units: Tensor,
        gates: Tensor,
        near: Callable[[], Tensor] | None,
        kept: tuple[BoolArray, BoolArray] | None,
        weights: WeightSource | None,
        anew: Callable[[], tuple[Tensor, Tensor]] | None,
    ) -> Any:
        self._passes.clear()
        units = gated_units(self.graph, units, gates)
        if kept is not None:
            if self._final is None or not all(map(np.array_equal, kept, self._final)):
                wanted = self._evened(kept[0]), kept[1]
                if self._built is None or not all(map(np.array_equal, wanted, self._built)):
                    self._build(*wanted)
                self._final = kept
        else:
            live, there = ((mask.detach() > 0).cpu().numpy() for mask in (units, gates))
            if not self._fits(live, there):
                if near is not None and not self.exactly:
                    live = live | (near().detach() > 0).cpu().numpy()
                self._build(*self._roomy(live, there))
        for mine, theirs in self._modules.values():
            mine.training = theirs.training
        tensors = self._tensors(units, gates, weights)

        def again() -> list[Tensor]:
            masks = (units, gates) if anew is None else anew()
            return list(self._tensors(*masks, weights).values())

        stage = Shadows(self._copy, list(tensors), self._copied, written=not self._compiled)
        made = Pass(self._passes, stage, list(tensors.values()), again)
        with made.forward():
            return made.over(self.call(self._copy, inputs))

    def _fits(self, live: BoolArray, gates: BoolArray) -> bool:
        """Whether the copy at hand has all that is live, and little besides."""
        if self._built is None:
            return False
        other = gates & ~self._built[1] if self._compiled else gates != self._built[1]
        if other.any():
            return False
        lacking, idle = live & ~self._built[0], self._built[0] & ~self._evened(live)
        slack = 0.0 if self.exactly else COMPILED_SLACK if self._compiled else SLACK
        whole = self._compiled and self.builds >= MOST_BUILDS
        return not lacking.any() and bool(whole or np.count_nonzero(idle) <= slack * np.count_nonzero(live))

    def _roomy(self, live: BoolArray, gates: BoolArray) -> tuple[BoolArray, BoolArray]:
        """The units and blocks to compute for those that live."""
        if self._compiled and self.builds >= MOST_BUILDS:
            return np.ones_like(live), np.ones_like(gates)
        return self._evened(live), gates

    def _evened(self, live: BoolArray) -> BoolArray:
        """``live`` and so many dead units that widths are multiples of ``EVEN`` where that is faster."""
        if self.exactly:
            return live
        order, owner, start, step, length = self._in_groups
        dead = ~live[order]
        dead_before = np.concatenate([[0], np.cumsum(dead)])
        count = length - (dead_before[start + length] - dead_before[start])
        lacks = np.where(count > 0, np.minimum(-count % step, length - count), 0)
        rank = dead_before[1:] - dead_before[start][owner]
        evened = live.copy()
        evened[order[dead & (rank <= lacks[owner])]] = True
        return evened

    def _tensors(self, units: Tensor, gates: Tensor, weights: WeightSource | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = dict(self._buffers)
        computed = {} if weights is None else weights({s.names[0]: s.region for s in self._slices if s.names})
        factors, matrices = self._acting(units, gates)
        for slice_, factor in zip(self._slices, factors, strict=True):
            tensor = computed.get(slice_.names[0]) if slice_.names else None
            if tensor is None:
                tensor = part(slice_.parameter, slice_.region)
            if factor is not None:
                tensor = tensor * factor.to(tensor.dtype)
            for name in slice_.names:
                found[name] = tensor
        for module, attribute, matrix in matrices:
            found[f"{module}.{attribute}" if module else attribute] = matrix
        return found

    def _acting(
        self, units: Tensor, gates: Tensor
    ) -> tuple[Iterable[Tensor | None], Iterable[tuple[str, str, Tensor]]]:
        """What each slice is multiplied by, masks of its axes and gates, and how branches are resampled: module,
        attribute and matrix. Both are kept as long as the masks rest."""
        if units.requires_grad or gates.requires_grad:
            return self._factors(units, gates), self._bands.matrices(units, gates)
        if self._resting is None or self._resting[0] is not units:
            factors = list(self._factors(units, gates))
            # Compiled, a parameter in place of a product would be another compilation.
            if self._final is not None and not self._compiled:
                factors = [None if f is None or bool((f == 1).all()) else f for f in factors]
            self._resting = units, factors, list(self._bands.matrices(units, gates))
        return self._resting[1:]

    def _factors(self, units: Tensor, gates: Tensor) -> Iterator[Tensor | None]:
        """All masks are looked up and multiplied at once: of small operators a search has many in every step."""
        values = self._pool(units, gates)[self._members].unbind(1)
        factors = iter(torch.split(functools.reduce(operator.mul, values), self._lengths))
        for slice_ in self._slices:
            yield next(factors).reshape(slice_.shape) if slice_.masks.size else None

    def _pool(self, units: Tensor, gates: Tensor) -> Tensor:
        """Masks of units, 1, masks of blocks; all these as 0 or 1 for frozen weights; and last what is 1 with the
        gradients of units."""
        every = torch.cat([units, units.new_ones(1)])
        soft = torch.cat([every, gates.to(units.dtype)])
        straight = [1 + (every - every.detach())] if self._takes_straight else []
        return torch.cat([soft, *([hard(soft)] if self._frozen else []), *straight])

    def _build(self, units: BoolArray, gates: BoolArray) -> None:
        """Prepare another choice; the modules are copied anew only if other blocks are there."""
        self.builds += 1
        self._resting = self._final = None
        self._built = (units, gates)
        graph = self.graph
        architecture = plan(self.model, graph, units, graph.gates(gates)).without(Resample)  # matrices come with masks
        narrow = any(multihead.WIDTHS[0] in values for values in architecture.attributes.values())
        key = gates.tobytes()
        if key != self._blocks or narrow:
            self._copy = trim(self.model, architecture)
            modules = dict(self._copy.named_modules())
            for resolution in graph.resolutions:
                if gates[resolution.block]:
                    resampling.hook_(modules, resolution.inputs, resolution.output, len(resolution.axes))
            self._blocks = None if narrow else key
            originals = dict(self.model.named_modules())
            copied = dict(named_modules(self._copy))
            self._copied = copied
            self._modules = {name: (mine, originals[name]) for name, mine in copied.items() if name in originals}
            self._removed = {p.name for p in graph.parameters.values() if architecture.is_removed(p.name)}
        else:
            self._resize(architecture)
        self._changed = architecture.attributes
        self._slices = [
            self._slice(parameter, architecture)
            for parameter in graph.parameters.values()
            if not parameter.is_buffer and parameter.name not in self._removed
        ]
        members = [slice_.masks for slice_ in self._slices if slice_.masks.size]
        most = max((rows.shape[1] for rows in members), default=1)
        wide = [np.pad(rows, ((0, 0), (0, most - rows.shape[1])), constant_values=graph.n_units) for rows in members]
        self._lengths = [len(rows) for rows in members]
        self._members = torch.from_numpy(np.concatenate([np.zeros((0, most), np.int64), *wide])).to(self._device)
        self._buffers = {
            name: architecture.slice(parameter.name, self._full[parameter.name])
            for parameter in graph.parameters.values()
            if parameter.is_buffer
            and any(a is not None for a in parameter.axes)
            and parameter.name not in self._removed
            for name in parameter.names
        }
        self._buffers.update(tighten(self._copy, self._buffers))

    def _resize(self, architecture: Architecture) -> None:
        """Bring the attributes of the copied modules from one choice to the next."""
        for name, values in self._changed.items():
            mine, original = self._modules[name]
            for attribute in values:
                set_size_(mine, attribute, getattr(original, attribute))
        for name, values in architecture.attributes.items():
            for attribute, value in values.items():
                set_size_(self._modules[name][0], attribute, value)

    def _slice(self, parameter: Parameter, architecture: Architecture) -> _Slice:
        tensor = self._full[parameter.name]
        names = (
            [name for name in parameter.names if not architecture.is_gone(name)] if self._removed else parameter.names
        )
        found = _Slice(tensor, list(names))
        kept = architecture.indices.get(parameter.name, {})
        found.region = {d: selection(index, tensor.device) for d, index in sorted(kept.items())}
        masked = [
            (d, axis.factors[kept[d]] if d in kept else axis.factors, for_gradient)
            for d, axis, for_gradient in self._read.get(parameter.name, ())
        ]
        lengths = {d: len(rows) for d, rows, _ in masked}
        found.shape = tuple(lengths.get(d, 1) for d in range(len(parameter.shape)))
        blocks = self._gated.get(parameter.name, [])
        kind = self._hard if parameter.name in self._frozen else 0
        columns = [np.array(kind + self.graph.n_units + 1 + block) for block in blocks]
        for d, rows, for_gradient in masked:
            along = [-1 if e == d else 1 for e in range(len(found.shape))]
            first = self._straight if for_gradient else kind
            columns += [(column + first).reshape(along) for column in rows.T]
        if columns:
            found.masks = np.stack([np.broadcast_to(c, found.shape).ravel() for c in columns], axis=1)
        return found
