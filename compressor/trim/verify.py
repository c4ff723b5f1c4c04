"""Does the trimmed model compute what the masked model computes? In float64, on random input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.architecture import Architecture
from compressor.errors import VerificationError
from compressor.generators import isolated_rng
from compressor.graph.forward import copied, tensors_in
from compressor.graph.graph import Graph, UnitMask
from compressor.graph.inputs import input_tensors
from compressor.graph.labels import BoolArray
from compressor.graph.modules import evaluating, uncompiled, unwrapped
from compressor.graph.stand_ins import shadowed, unchanged
from compressor.masks import Masking
from compressor.quantization import unobserved
from compressor.trim.apply import trim
from compressor.trim.double import InPrecision, precise
from compressor.trim.plan import plan

TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-4  # for models that cannot run in float64


@dataclass(frozen=True)
class Check:
    """``error`` is max |difference| / max |output| over all outputs; ``reason`` says why it is infinite."""

    error: float
    tolerance: float = TOLERANCE
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass
class TrimResult:
    """A trimmed model that was verified; ``refused`` lists groups and blocks left whole, as it was not exact."""

    model: nn.Module
    architecture: Architecture
    check: Check
    refused: list[str]
    reason: str = ""

    def require_exact(self) -> None:
        """Raise ``VerificationError`` if the check fails even with everything restored that was not exact."""
        if not self.check.passed:
            raise VerificationError(
                f"The trimmed model differs from the masked one by {self.check.error:.1e} (allowed "
                f"{self.check.tolerance:.0e}) even with nothing removed: {self.check.reason or 'unknown cause'}. "
                "Does its forward use random numbers, or state that changes between calls?"
            )


class Verifier:
    """Compares masked and trimmed models of one original. The original is not changed."""

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        example_inputs: Any,
        example_kwargs: dict[str, Any] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.model, self.graph = unwrapped(model), graph
        self.masking = Masking(self.model, graph)
        self._generator = torch.Generator().manual_seed(seed)
        args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
        kwargs = example_kwargs or {}
        if graph.inputs is not None and [tuple(t.shape) for t in input_tensors(args, kwargs)] != graph.input_shapes:
            args, kwargs = graph.inputs.one((args, kwargs))
        device = next(self.model.parameters()).device
        self._random = pytree.tree_map(lambda leaf: self._input(leaf, device), (args, kwargs))
        self._dtype = torch.float64

    def check(
        self, units: UnitMask, trimmed: nn.Module, architecture: Architecture, gates: BoolArray | None = None
    ) -> Check:
        """The error of one trimmed model."""
        try:
            return self._check(units, trimmed, architecture, gates, torch.float64)
        except _NoDoubleError:
            return self._check(units, trimmed, architecture, gates, torch.float32)

    def _check(
        self,
        units: UnitMask,
        trimmed: nn.Module,
        architecture: Architecture,
        gates: BoolArray | None,
        dtype: torch.dtype,
    ) -> Check:
        tolerance = TOLERANCE if dtype is torch.float64 else SINGLE_TOLERANCE
        weights = _Weights(self.model, self.graph, dtype)
        args, kwargs = pytree.tree_map(
            lambda leaf: precise(leaf, dtype) if isinstance(leaf, Tensor) else leaf, self._random
        )
        device = next(self.model.parameters()).device
        mask = torch.from_numpy(np.asarray(units[: self.graph.n_units])).to(device, dtype)
        gate = None if gates is None else torch.from_numpy(self.graph.gates(gates)).to(device, dtype)
        models = self.model, trimmed
        watched = (
            unchanged(*models),
            uncompiled(*models),
            unobserved(*models),
            evaluating(self.model),
            evaluating(trimmed),
        )
        with ExitStack() as stack, torch.no_grad(), InPrecision(dtype):
            for context in watched:
                stack.enter_context(context)
            try:
                with self.masking.applied(mask, weights, gate):
                    expected = tensors_in(_run(self.model, args, kwargs))
            except RuntimeError as error:
                if dtype is torch.float64:
                    raise _NoDoubleError from error
                raise
            kept = [name for name in weights if not architecture.is_gone(name)]
            try:
                with shadowed(trimmed, {n: architecture.slice(weights.first[n], weights[n]) for n in kept}):
                    found = tensors_in(_run(trimmed, args, kwargs))
            except Exception as error:  # any failure of the trimmed forward is a failed check
                return Check(float("inf"), tolerance, f"the trimmed model raises {type(error).__name__}: {error}")
        if [t.shape for t in expected] != [t.shape for t in found]:
            shapes = [list(t.shape) for t in found], [list(t.shape) for t in expected]
            return Check(float("inf"), tolerance, f"outputs have shapes {shapes[0]}, not {shapes[1]}")
        return Check(max((_error(a, b) for a, b in zip(expected, found, strict=True)), default=0.0), tolerance)

    def _input(self, leaf: Any, device: torch.device) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if not (leaf.is_floating_point() or leaf.is_complex()):
            return leaf.to(device)
        kind = torch.complex128 if leaf.is_complex() else torch.float64
        return torch.randn(leaf.shape, generator=self._generator, dtype=kind).to(device)


class _Weights(Mapping[str, Tensor]):
    """All parameters and buffers by any name, in another type; constant ones are random: zeros hide mistakes.

    Made anew at every look: a large network in float64 is held once, masked or trimmed, and never whole beside that.
    """

    def __init__(self, model: nn.Module, graph: Graph, dtype: torch.dtype) -> None:
        self.first = {name: parameter.name for parameter in graph.parameters.values() for name in parameter.names}
        self._tensors = {
            parameter.name: (model.get_buffer if parameter.is_buffer else model.get_parameter)(parameter.name).detach()
            for parameter in graph.parameters.values()
        }
        self._seeds = {name: seed for seed, name in enumerate(self._tensors)}
        self._dtype = dtype

    def __getitem__(self, name: str) -> Tensor:
        name = self.first[name]
        value = precise(self._tensors[name], self._dtype)
        if not (value.is_floating_point() or value.is_complex()):
            return value
        if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
            generator = torch.Generator().manual_seed(self._seeds[name])
            noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
            value = value + 0.1 * noise.to(value.device)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.first)

    def __len__(self) -> int:
        return len(self.first)


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """On copies, as a forward may change what it is given in place."""
    args, kwargs = copied((args, kwargs))
    with isolated_rng(seed=0):  # both models draw the same
        return model(*args, **kwargs)


class _NoDoubleError(Exception):
    """The original cannot run in float64, for instance because it keeps float32 tensors that are no buffers."""


def _error(expected: Tensor, found: Tensor) -> float:
    if expected.numel() == 0:
        return 0.0
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0 if torch.equal(expected, found) else float("inf")
    scale = float(expected.abs().max())
    difference = float((expected - found).abs().max())
    if difference != difference:
        return 0.0 if torch.equal(torch.isnan(expected), torch.isnan(found)) and scale != scale else float("inf")
    return difference / scale if scale > 0 else difference


def trim_verified(
    model: nn.Module,
    graph: Graph,
    units: UnitMask,
    example_inputs: Any,
    example_kwargs: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    gates: BoolArray | None = None,
) -> TrimResult:
    """Trim and verify. Groups and blocks whose removal is not exact are found by bisection, restored, and ``refused``.

    The result may then lie above a budget; the caller decides again with these left whole.

    Args:
        units: which units are kept, shape (n_units,) or with the constant last entry.
        gates: which blocks are kept, shape (n_blocks,); default all.
    """
    model = unwrapped(model)
    verifier = Verifier(model, graph, example_inputs, example_kwargs, seed=seed)
    wanted = _Choice(np.append(np.asarray(units[: graph.n_units], dtype=np.bool_), True), graph.gates(gates))

    def attempt(choice: _Choice) -> tuple[nn.Module | None, Architecture, Check]:
        architecture = plan(model, graph, choice.units, choice.gates)
        try:
            trimmed = trim(model, architecture)
        except (RuntimeError, IndexError, ValueError, KeyError, AttributeError) as error:
            return None, architecture, Check(float("inf"), TOLERANCE, f"{type(error).__name__}: {error}")
        return trimmed, architecture, verifier.check(choice.units, trimmed, architecture, choice.gates)

    trimmed, architecture, check = attempt(wanted)
    refused: list[str] = []
    reason = check.reason or f"they differ by {check.error:.1e}"
    if not check.passed:
        changed = wanted.changes(graph)
        guilty = _guilty(changed, lambda some: attempt(wanted.only(graph, some))[2].passed)
        trimmed, architecture, check = attempt(wanted.only(graph, [c for c in changed if c not in guilty]))
        if not check.passed:  # none is at fault alone, only several together
            guilty = changed
            trimmed, architecture, check = attempt(wanted.only(graph, []))
        refused = [graph.groups[i].name if kind == "group" else graph.blocks[i].name for kind, i in guilty]
    if trimmed is None:
        trimmed = trim(model, architecture)
    return TrimResult(trimmed, architecture, check, refused, reason)


_Change = tuple[str, int]


@dataclass
class _Choice:
    """What is kept: ``units`` with the constant last entry, and ``gates``."""

    units: UnitMask
    gates: BoolArray

    def changes(self, graph: Graph) -> list[_Change]:
        """The groups and blocks that lose something; a group inside a removed block goes with it."""
        gone = [block for block in graph.blocks if not self.gates[block.index]]
        inside = {g for block in gone for g in block.groups}
        groups = [g.index for g in graph.groups if g.index not in inside and not self.units[g.units].all()]
        return [*(("group", g) for g in groups), *(("block", block.index) for block in gone)]

    def only(self, graph: Graph, changes: list[_Change]) -> _Choice:
        """The same choice, but with these changes alone."""
        units, gates = graph.all_units(), np.ones(len(graph.blocks), dtype=np.bool_)
        for kind, i in changes:
            if kind == "block":
                gates[i] = False
            for g in graph.blocks[i].groups if kind == "block" else (i,):
                units[graph.groups[g].units] = self.units[graph.groups[g].units]
        return _Choice(units, graph.gates(gates))


def _guilty(changes: list[_Change], passes: Callable[[list[_Change]], bool]) -> list[_Change]:
    """The changes that fail alone, found by halving."""
    if not changes or passes(changes):
        return []
    if len(changes) == 1:
        return changes
    half = len(changes) // 2
    return _guilty(changes[:half], passes) + _guilty(changes[half:], passes)
