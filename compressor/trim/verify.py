"""Does the trimmed model compute what the masked model computes?

Both run in float64, or in the highest precision in which the original runs: on the user's own inputs, on random ones in
another number of examples and in other lengths, and with drawn weights where the model's own leave units dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.architecture.architecture import Architecture
from compressor.arrays import BoolArray, UnitMask
from compressor.errors import UnsupportedModelError, VerificationError
from compressor.graph.graph import Graph
from compressor.graph.inputs.input_axes import arguments
from compressor.graph.recording.forward import copied
from compressor.masks import Masking
from compressor.nn.modules import evaluating, uncompiled, unwrapped
from compressor.nn.quantization import observes, unobserved
from compressor.nn.swap import shadowed, unchanged
from compressor.nn.tensors import to_device
from compressor.process.generators import isolated_rng
from compressor.trim.apply import trim
from compressor.trim.culprits import Change, Choice, guilty
from compressor.trim.double import InPrecision, precise
from compressor.trim.influence import MOST, Influence, Watched
from compressor.trim.outputs import Seen, difference, is_nan
from compressor.trim.plan import plan
from compressor.trim.probes import Probe, count, other_probes, own_probe, random_probe
from compressor.trim.recount import disagreement
from compressor.trim.sound import numbers_in, require_finite_inputs, require_finite_weights
from compressor.trim.weights import Weights

TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-4  # for models that cannot run in float64
_TOLERANCES = {
    torch.float64: TOLERANCE,
    torch.float32: SINGLE_TOLERANCE,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}
_DRAWS = 4  # of weights and inputs, until every unit is seen


@dataclass(frozen=True)
class Check:
    """``error`` is max |difference| / max |output| over all outputs; ``reason`` says why it is infinite.

    Attributes:
        dtype: the precision both models ran in.
        inputs: on what they were compared.
        seen: share of the kept units, of groups that lose some, whose change would have been noticed; ``None`` where
            that could not be measured.
        unseen: where no change of any would, their groups.
    """

    error: float
    tolerance: float = TOLERANCE
    reason: str = ""
    dtype: str = "float64"
    inputs: tuple[str, ...] = ()
    seen: float | None = None
    unseen: tuple[str, ...] = ()

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
        self.units = np.append(np.asarray(units[: verifier.graph.n_units], dtype=np.bool_), True)
        self.gates = None if gates is None else verifier.graph.gates(gates)

    def influence(self) -> Influence:
        graph = self.verifier.graph
        kept = np.ones(len(graph.blocks), dtype=np.bool_) if self.gates is None else self.gates
        changes = Choice(self.units, kept).changes(graph)
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
            torch.no_grad(),
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
        names = [name for name in weights if not self.architecture.is_gone(name)]

        def sliced() -> dict[str, Tensor]:
            return {n: self.architecture.slice(weights.first[n], weights[n]) for n in names}

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
            if number == looked and influence is not None and not influence.failure:
                leaves = {name: tensors[name] for name in influence.names if name in tensors}
                if sum(t.numel() for t in leaves.values()) <= MOST:
                    try:
                        found.append(self._looked(tensors, leaves, probe, dtype, influence))
                        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
                        continue
                    except Exception as error:  # operators without a derivative, weights changed in place
                        influence.failure = (str(error).splitlines() or [type(error).__name__])[0]
                        tensors = sliced()
                else:
                    influence.failure = "the network is large"
            try:
                with unchanged(self.trimmed), shadowed(self.trimmed, tensors), Watched() as watched:
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
            with unchanged(self.trimmed), shadowed(self.trimmed, tensors), Watched() as watched:
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
    """Trim and verify. Groups and blocks whose removal is not exact are found by bisection, restored, and ``refused``;
    so are all if no output depends on any of them, whatever is drawn.

    The result may then lie above a budget; the caller decides again with these left whole.

    Args:
        units: which units are kept, shape (n_units,) or with the constant last entry.
        gates: which blocks are kept, shape (n_blocks,); default all.

    Raises:
        UnsupportedModelError: the original raises on the inputs, or has weights that are not finite.
        UsageError: inputs that are no numbers.
    """
    model = unwrapped(model)
    verifier = Verifier(model, graph, example_inputs, example_kwargs, seed=seed)
    wanted = Choice(np.append(np.asarray(units[: graph.n_units], dtype=np.bool_), True), graph.gates(gates))

    def attempt(choice: Choice, *, thorough: bool = True) -> tuple[nn.Module | None, Architecture, Check]:
        architecture = plan(model, graph, choice.units, choice.gates)
        try:
            trimmed = trim(model, architecture)
        except (RuntimeError, IndexError, ValueError, KeyError, AttributeError) as error:
            return None, architecture, Check(float("inf"), TOLERANCE, f"{type(error).__name__}: {error}")
        check = verifier.check(choice.units, trimmed, architecture, choice.gates, thorough=thorough)
        if thorough and check.passed:
            wrong = disagreement(model, trimmed, graph, choice.units, choice.gates, verifier.inputs)
            check = replace(check, error=float("inf"), reason=wrong) if wrong else check
        return trimmed, architecture, check

    trimmed, architecture, check = attempt(wanted)
    refused: list[Change] = []
    reason = check.reason or f"they differ by {check.error:.1e}"
    if not check.passed:
        changed = wanted.changes(graph)
        quick = not attempt(wanted, thorough=False)[2].passed
        refused = guilty(changed, lambda some: attempt(wanted.only(graph, some), thorough=not quick)[2].passed)
        trimmed, architecture, check = attempt(wanted.without(graph, refused))
        if not check.passed:  # none is at fault alone, only several together
            refused = changed
            trimmed, architecture, check = attempt(wanted.without(graph, refused))
    for _ in range(2):  # what was left to be removed may be unseen in its turn
        if not check.passed or len(check.unseen) < max(1, len(graph.groups)):
            break  # a few that matter to nothing are named, and may go
        if not refused:
            reason = "no input was found on which the output depends on their channels"
        refused += [("group", g.index) for g in graph.groups if g.name in check.unseen]
        trimmed, architecture, check = attempt(wanted.without(graph, refused))
    if trimmed is None:
        trimmed = trim(model, architecture)
    names = [graph.groups[i].name if kind == "group" else graph.blocks[i].name for kind, i in refused]
    return TrimResult(trimmed, architecture, check, names, reason)
