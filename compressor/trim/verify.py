"""Does the trimmed model compute what the masked model computes?

Both run in float64, or in the highest precision in which the original runs: on the user's own inputs, on random ones in
another number of examples and in other lengths, and with drawn weights where the model's own leave units dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.architecture.architecture import Architecture
from compressor.arrays import BoolArray, UnitMask
from compressor.errors import CompressorError, UnsupportedModelError
from compressor.graph.gated import kept_units
from compressor.graph.graph import Graph
from compressor.graph.inputs.input_axes import arguments
from compressor.graph.recording.forward import copied
from compressor.masks import Masking
from compressor.nn.modules import evaluating, gradients, uncompiled, unwrapped
from compressor.nn.quantization import observes, unobserved
from compressor.nn.swap import swapped_tensors, unchanged
from compressor.nn.tensors import to_device
from compressor.process.generators import isolated_rng
from compressor.trim.check import SINGLE_TOLERANCE, TOLERANCE, Check
from compressor.trim.culprits import Kept
from compressor.trim.double import InPrecision, precise
from compressor.trim.influence import MOST, Influence, Watched
from compressor.trim.outputs import Seen, difference, is_nan
from compressor.trim.probes import Probe, count, other_probes, own_probe, random_probe
from compressor.trim.sound import numbers_in, require_finite_inputs, require_finite_weights
from compressor.trim.weights import Weights

_TOLERANCES = {
    torch.float64: TOLERANCE,
    torch.float32: SINGLE_TOLERANCE,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
_DRAWS = 4  # of weights and inputs, until every unit is seen


class Verifier:
    """Compares masked and trimmed models of one original. The original is not changed.

    Raises:
        UnsupportedModelError: weights that are not finite. UsageError: inputs that are no numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        example_inputs: Any,
        example_kwargs: dict[str, Any] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.model, self.graph, self._seed = unwrapped(model), graph, seed
        require_finite_weights(self.model)
        self.masking = Masking(self.model, graph)
        self._device = next(self.model.parameters()).device
        args, kwargs = to_device(arguments(example_inputs, example_kwargs), self._device)
        require_finite_inputs((args, kwargs))
        self.inputs = args, kwargs
        self._own = own_probe(graph, self.inputs)
        kinds = {p.dtype for p in self.model.parameters()} & set(_TOLERANCES)
        self._precisions = [torch.float64, torch.float32, *sorted(kinds - {torch.float64, torch.float32}, key=str)]

    @cached_property
    def _others(self) -> list[Probe]:
        """Beside the user's own inputs; the same for every trimmed model."""
        return list(other_probes(self.model, self.graph, self.inputs, self._seed))

    def check(
        self,
        units: UnitMask,
        trimmed: nn.Module,
        architecture: Architecture,
        gates: BoolArray | None = None,
        *,
        thorough: bool = True,
    ) -> Check:
        """The error of one trimmed model, the largest found on any inputs.

        Args:
            thorough: on all inputs, and until every unit is seen; else on the user's own and random ones.

        Raises:
            UnsupportedModelError: the original raises on the user's inputs.
        """
        case = _Case(self, units, trimmed, architecture, gates)
        while True:
            try:
                return self._checked(case, thorough)
            except _RaisesError as error:
                if isinstance(error.cause, CompressorError):  # it says what it is
                    raise error.cause from error.cause.__cause__
                if len(self._precisions) == 1:
                    raise UnsupportedModelError(
                        f"The forward of {type(self.model).__name__} raises on the example inputs: "
                        f"{type(error.cause).__name__}: {(str(error.cause).splitlines() or ['no message'])[0]}. Check "
                        "the inputs' shapes, types and values."
                    ) from error.cause
                del self._precisions[0]

    def _checked(self, case: _Case, thorough: bool) -> Check:
        influence = case.influence() if thorough else None
        names: list[str] = []
        worst = Check(0.0, _TOLERANCES[self._precisions[0]])

        def compare(probes: Sequence[Probe], draw: int = 0) -> None:
            nonlocal worst
            for probe, found in zip(probes, case.compare(probes, draw, influence), strict=True):
                if found is not None:
                    worst = found if not found.error <= worst.error else worst
                    names.append(f"{probe.name} and weights" if draw else probe.name)

        if influence is None:
            compare([self._own, random_probe(self._own.inputs, self._seed)])
        else:
            probes = [self._own, *self._others]
            compare(probes)
            least = min(probes, key=lambda probe: count(probe.inputs))
            few = least if 4 * count(least.inputs) <= count(self._own.inputs) else self._own
            before = -1  # both kinds of drawn weights, then only as long as more is seen
            for draw in range(1, _DRAWS + 1):
                left = int(influence.unseen.sum())
                if not worst.passed or influence.failure or not left or (draw > 2 and left == before):
                    break
                before = left
                compare([random_probe(few.inputs, self._seed + draw)], draw)
        found = replace(
            worst, dtype=str(self._precisions[0]).removeprefix("torch."), inputs=tuple(dict.fromkeys(names))
        )
        if influence is None:
            return found
        unseen = influence.unseen
        # Channels that a forward drops, or of a maximum: what else is seen of their layers says enough.
        groups = () if influence.alive else tuple(g.name for g in self.graph.groups if unseen[g.units].any())
        return replace(found, seen=influence.share, unseen=() if influence.failure else groups)


class _Case:
    """One trimmed model beside its original."""

    def __init__(
        self,
        verifier: Verifier,
        units: UnitMask,
        trimmed: nn.Module,
        architecture: Architecture,
        gates: BoolArray | None,
    ) -> None:
        self.verifier, self.trimmed, self.architecture = verifier, trimmed, architecture
        self.differentiates = verifier.graph.gradients  # whether the original's forward takes gradients itself
        self.gates = None if gates is None else verifier.graph.gates(gates)
        units = kept_units(verifier.graph, units, self.gates)
        self.units = np.append(np.asarray(units[: verifier.graph.n_units], dtype=np.bool_), True)

    def influence(self) -> Influence:
        graph = self.verifier.graph
        kept = np.ones(len(graph.blocks), dtype=np.bool_) if self.gates is None else self.gates
        changes = Kept(self.units, kept).changes(graph)
        groups = [i for kind, i in changes if kind == "group" and graph.groups[i].ranked]
        found = Influence(graph, self.units, groups, self.architecture.is_gone)
        if observes(self.verifier.model):
            found.failure = "values are rounded"
        return found

    def compare(self, probes: Sequence[Probe], draw: int, influence: Influence | None) -> list[Check | None]:
        """The error on each of these inputs; ``None`` if the original does not take them, or gives no numbers.

        One of them also tells which units are seen.

        Raises:
            _RaisesError: the original does not run on the user's inputs in the present precision.
        """
        verifier = self.verifier
        dtype = verifier._precisions[0]
        tolerance = _TOLERANCES[dtype]
        weights = Weights(verifier.model, verifier.graph, dtype, draw)
        with self._prepared(dtype):
            expected = self._masked(weights, probes, dtype)
            found = self._trimmed(weights, probes, dtype, influence, [one is not None for one in expected])
        checks: list[Check | None] = []
        for probe, one, other in zip(probes, expected, found, strict=True):
            if one is None or other is None:
                checks.append(None)
            elif isinstance(other, Exception):
                said = f"the trimmed model raises {type(other).__name__}: {other}"
                checks.append(Check(float("inf"), tolerance, said))
            else:
                error, wrong = difference(one, other, decisions=influence is not None)
                reason = "" if error <= tolerance else f"{wrong} on {probe.name}"
                checks.append(Check(error, tolerance, reason))
        return checks

    def _prepared(self, dtype: torch.dtype) -> ExitStack:
        """What a run needs around it, entered when this returns."""
        models = self.verifier.model, self.trimmed
        stack = ExitStack()
        for context in (
            gradients(self.verifier.graph.gradients),
            InPrecision(dtype),
            unchanged(*models),
            uncompiled(*models),
            unobserved(*models),
            evaluating(models[0]),
            evaluating(models[1]),
        ):
            stack.enter_context(context)
        return stack

    def _masked(self, weights: Weights, probes: Sequence[Probe], dtype: torch.dtype) -> list[Seen | None]:
        verifier = self.verifier
        mask = torch.from_numpy(self.units[:-1]).to(verifier._device, dtype)
        gate = None if self.gates is None else torch.from_numpy(self.gates).to(verifier._device, dtype)
        found: list[Seen | None] = []
        for probe in probes:
            # Sites count calls from when masks are applied.
            with unchanged(verifier.model), verifier.masking.applied(mask, weights, gate), Watched() as watched:
                try:
                    outputs = _run(verifier.model, probe, dtype)
                except Exception as error:  # whatever a forward may raise
                    if probe.own:
                        raise _RaisesError(error) from error
                    found.append(None)
                    continue
            self.differentiates |= watched.differentiates
            found.append((outputs, watched.seen) if probe.own or not any(map(is_nan, outputs)) else None)
        return found

    def _trimmed(
        self,
        weights: Weights,
        probes: Sequence[Probe],
        dtype: torch.dtype,
        influence: Influence | None,
        wanted: Sequence[bool],
    ) -> list[Seen | Exception | None]:
        verifier = self.verifier
        names = [name for name in weights if not self.architecture.is_gone(name)]

        def sliced() -> dict[str, Tensor]:
            found = {n: self.architecture.slice(weights.first[n], weights[n]) for n in names}
            return {n: tensor.requires_grad_(weights.is_differentiated(n)) for n, tensor in found.items()}

        # Much smaller inputs tell which units are seen as well as the user's own, which come first among equals.
        sizes = [count(probe.inputs) for probe in probes]
        cheap = [n for n, asked in enumerate(wanted) if asked and 4 * sizes[n] <= sizes[0]]
        looked = min(cheap, key=lambda n: sizes[n], default=0)
        tensors = sliced()
        found: list[Seen | Exception | None] = []
        for number, (probe, asked) in enumerate(zip(probes, wanted, strict=True)):
            if not asked:
                found.append(None)
                continue
            if number and verifier.graph.written:  # by the forwards before
                tensors = sliced()
            if number == looked and influence is not None and not influence.failure:
                leaves = {name: tensors[name] for name in influence.names if name in tensors}
                if sum(t.numel() for t in leaves.values()) <= MOST:
                    try:
                        found.append(self._looked(tensors, leaves, probe, dtype, influence))
                        if not verifier.graph.gradients:
                            tensors = {name: tensor.detach() for name, tensor in tensors.items()}
                        continue
                    except Exception as error:  # operators without a derivative, weights changed in place
                        influence.failure = (str(error).splitlines() or [type(error).__name__])[0]
                        tensors = sliced()
                else:
                    influence.failure = "the network is large"
            try:
                with unchanged(self.trimmed), swapped_tensors(self.trimmed, tensors), Watched() as watched:
                    found.append((_run(self.trimmed, probe, dtype), watched.seen))
            except Exception as error:  # any failure of the trimmed forward is a failed check
                found.append(error)
        return found

    def _looked(
        self,
        tensors: Mapping[str, Tensor],
        leaves: dict[str, Tensor],
        probe: Probe,
        dtype: torch.dtype,
        influence: Influence,
    ) -> Seen:
        for tensor in leaves.values():
            tensor.requires_grad_()
        with torch.enable_grad():
            watching = Watched(through=not self.differentiates)
            with unchanged(self.trimmed), swapped_tensors(self.trimmed, tensors), watching as watched:
                found = _run(self.trimmed, probe, dtype)
            threshold = 1e3 * _TOLERANCES[dtype] if dtype is torch.float64 else 10 * _TOLERANCES[dtype]
            influence.look(leaves, found, threshold)
            if influence.unseen.any() or not influence.run.any():
                influence.look(leaves, [tensor for _, tensor in watched.seen], threshold)
        return [t.detach() for t in found], [(name, t.detach()) for name, t in watched.seen]


def _run(model: nn.Module, probe: Probe, dtype: torch.dtype) -> list[Tensor]:
    """On copies, as a forward may change what it is given in place."""
    args, kwargs = pytree.tree_map(
        lambda leaf: precise(leaf, dtype) if isinstance(leaf, Tensor) else leaf, copied(probe.inputs)
    )
    with isolated_rng(seed=0):  # both models draw the same
        return numbers_in(model(*args, **kwargs))


class _RaisesError(Exception):
    """The original cannot run in a precision, for instance as it has no kernels for it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause
