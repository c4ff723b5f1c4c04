"""Further passes for what the first did not reach, appended to its recording.

Auxiliary heads run in training only, experts for some tokens only, later layers where an earlier one was not sure or
the input is long. What such parameters touch must shrink with them or stay with them, so they are run, too: in training
mode; where values decide, on all that was given and on other numbers, else on longer and shorter inputs; and in the
place of a module like them that did run.

Code that runs in training alone (``if self.training: self.queue[:, i] = keys``) may use what was reached, too: where a
module decides by its mode, the pass in training mode is made whatever was reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.graph.analysis.mentions import decides_by_mode, named_parts
from compressor.graph.inputs.input_axes import Arguments, InputAxes, input_tensors, resized_axis
from compressor.graph.recording.forward import Recording, copied, on_meta, tensors_in, tracing
from compressor.graph.recording.traceable_attributes import traceable_attributes
from compressor.graph.recording.values import ModuleCall, Value
from compressor.nn.swap import swapped_tensors
from compressor.nn.walk import named_modules

_RANDOM = ((8, 1.0), (1, 0.1), (8, 10.0), (1, 0.0), (8, 1.0), (1, 1.0))
"""Random passes: how many examples, and how large their numbers are next to those given."""
_LENGTHS = 3  # of axes that are tried longer and shorter
_PLACES = 4  # of modules alike that one which did not run is tried in


@dataclass
class Replay:
    """A module that did not run, run in the place of ``twin``: what either was given and returned."""

    module: str
    twin: ModuleCall
    given: list[Value]
    returned: list[tuple[Value, Value]]


@dataclass
class Further:
    """Outputs of further passes, modules replayed, and parameters that nothing reached; among them buffers that code
    may use which runs in training alone and could not be followed."""

    outputs: list[Value] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def reach(seen: Recording, model: nn.Module, axes: InputAxes, inputs: Arguments, whole: Arguments) -> Further:
    """Append passes until every parameter was reached, and what runs in training alone, or nothing else can be tried.

    Args:
        axes: the batch axes, or what is taken for them.
        inputs: what the recording was made on.
        whole: what the user gave, of which that may be one example.
    """
    found = Further()
    calls = list(seen.recorder.calls)
    missed, deciding = missed_parameters(seen), _deciding(seen, calls)
    if missed or deciding:
        known = _calls(seen, 0)
        with tracing(model, differentiable=seen.gradients):
            n = len(seen.recorder.nodes)
            ran = _in_training(seen, model, axes, inputs, found)
            if not missed and ran and _calls(seen, n) == known:  # nothing else, then
                del seen.recorder.nodes[n:]
                found.outputs.clear()
    unsure = [] if not deciding or ran else _buffers_of(seen, deciding)
    if missed:
        with tracing(model, differentiable=seen.gradients):
            others = _other_lengths(axes, inputs) if seen.on_meta else _other_values(axes, inputs, whole)
            if _usable(seen, calls):
                _on_others(seen, model, others, found)
            for name in missed_modules(seen, calls):
                _in_place_of_twins(seen, name, calls, found)
        found.missed = _usable(seen, calls)
    found.missed += unsure
    seen.recorder.calls[:] = calls
    return found


def missed_parameters(seen: Recording) -> list[str]:
    """Parameters (no buffers) that no operator read."""
    reached = {value.index for node in seen.recorder.nodes for value in node.inputs}
    return [name for name, value in seen.parameters.items() if name in seen.weights and value.index not in reached]


def _deciding(seen: Recording, calls: list[ModuleCall]) -> set[str]:
    """The modules that ran and do something else in training."""
    modules = seen.recorder.modules.by_name
    classes: dict[type[nn.Module], bool] = {}
    for name in {call.module for call in calls}:
        module = modules[name]
        if type(module) not in classes:
            classes[type(module)] = decides_by_mode(module)
    return {call.module for call in calls if classes[type(modules[call.module])]}


def _calls(seen: Recording, start: int) -> set[tuple[str, str, int]]:
    """The functions that the program called, and where, from a node on."""
    made = (node.call for node in seen.recorder.nodes[start:])
    return {(call.place, call.name, call.ordinal) for call in made if call is not None}


def _buffers_of(seen: Recording, modules: set[str]) -> list[str]:
    """Buffers that these modules keep themselves and that channels may lie along."""
    buffers = [name for name in seen.parameters if name not in seen.weights and name.rpartition(".")[0] in modules]
    return [name for name in buffers if max(seen.parameters[name].shape, default=1) > 1]


def _usable(seen: Recording, calls: list[ModuleCall]) -> list[str]:
    """The missed parameters that code of the model names, so that they may be reached another time."""
    missed = missed_parameters(seen)
    named = named_parts(seen.recorder.modules.by_name.values()) if missed else None
    if named is None:
        return missed
    ran = {call.module for call in calls}
    found = []
    for name in missed:
        scope = [owner for owner in _owners(name) if owner in ran][-1]
        part = name[len(scope) :].lstrip(".").partition(".")[0]
        if part in named or type(seen.recorder.modules.by_name[scope]).__module__.startswith("torch.nn."):
            found.append(name)
    return found


def missed_modules(seen: Recording, calls: list[ModuleCall]) -> list[str]:
    """The outermost modules that did not run and of whose parameters none was reached."""
    missed = set(missed_parameters(seen))
    ran = {call.module for call in calls}
    touched = {owner for name in seen.weights if name not in missed for owner in _owners(name)}
    found: dict[str, None] = {}
    for name in missed:
        whole = [owner for owner in _owners(name) if owner not in touched and owner not in ran]
        if whole:
            found[whole[0]] = None
    return list(found)


def _owners(name: str) -> list[str]:
    """The modules around a parameter, outermost (the model) first."""
    parts = name.split(".")[:-1]
    return ["", *(".".join(parts[: n + 1]) for n in range(len(parts)))]


def _in_training(seen: Recording, model: nn.Module, axes: InputAxes, inputs: Arguments, found: Further) -> bool:
    """A pass in training mode, on meta tensors only, of one example as all others, or of two where batch statistics
    need them; whether it went through."""
    if not seen.on_meta:
        return False
    modes = [(module, module.training) for _, module in named_modules(model)]
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    try:
        model.train()
        return any(_append(seen, model, on_meta(axes.resized(inputs, count)), found) for count in (1, 2))
    finally:
        for registered, before in buffers:
            registered.update(before)
        for module, mode in modes:
            vars(module)["training"] = mode


def _on_others(seen: Recording, model: nn.Module, others: Iterable[Arguments], found: Further) -> None:
    """Passes on other inputs; those that reach nothing new are dropped."""
    for other in others:
        before, nodes, outputs = missed_parameters(seen), len(seen.recorder.nodes), len(found.outputs)
        if not before:
            return
        _append(seen, model, other, found)
        if missed_parameters(seen) == before:
            del seen.recorder.nodes[nodes:], found.outputs[outputs:]


def _other_lengths(axes: InputAxes, inputs: Arguments) -> Iterator[Arguments]:
    """Longer and shorter inputs, without numbers: layers that run from some length on, or up to it."""
    given = zip(input_tensors(*inputs), axes.batch, strict=True)
    lengths = {n for t, batch in given for d, n in enumerate(t.shape) if d != batch and n > 1}
    for n in sorted(lengths)[-_LENGTHS:]:
        for length in (2 * n, 8 * n, n // 2, n // 8):
            if length:
                yield on_meta(resized_axis(axes, inputs, n, length))


def _other_values(axes: InputAxes, inputs: Arguments, whole: Arguments) -> Iterator[Arguments]:
    """The whole batch, then random numbers of the same range."""
    if axes.size(whole) > 1:
        yield copied(whole)
    generator = torch.Generator().manual_seed(0)

    def drawn(leaf: Any, size: float) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dtype is torch.bool or leaf.is_complex() or not leaf.numel():
            return leaf
        if not leaf.is_floating_point():
            low, high = int(leaf.min()), int(leaf.max())
            return torch.randint(low, high + 1, leaf.shape, generator=generator, dtype=leaf.dtype).to(leaf.device)
        scale = size * (float(leaf.detach().abs().max()) or 1.0)
        return (torch.randn(leaf.shape, generator=generator) * scale).to(leaf)

    for examples, size in _RANDOM:
        args, kwargs = pytree.tree_map(partial(drawn, size=size), axes.resized(inputs, examples))
        yield args, kwargs


def _append(seen: Recording, model: nn.Module, inputs: Arguments, found: Further) -> bool:
    """One more pass. One that fails is left out: the first went through, which is what counts."""
    recorder = seen.recorder
    n = len(recorder.nodes)
    try:
        with (
            swapped_tensors(model, recorder.shadows),
            traceable_attributes(recorder.modules.by_name),
            recorder.recording(),
        ):
            output = model(*inputs[0], **inputs[1])
        found.outputs += [recorder.value(t) for t in tensors_in(output)]
        return True
    except Exception:  # whatever a forward may raise
        del recorder.nodes[n:]
        return False


def _in_place_of_twins(seen: Recording, name: str, calls: list[ModuleCall], found: Further) -> None:
    """Run a module on what modules like it beside it were given."""
    recorder = seen.recorder
    modules = recorder.modules.by_name
    module, beside = modules[name], name.rpartition(".")[0]
    alike = [
        call
        for call in {c.module: c for c in reversed(calls)}.values()
        if call.module.rpartition(".")[0] == beside and _shapes(modules[call.module]) == _shapes(module)
    ]
    for twin in alike[-_PLACES:]:
        n = len(recorder.nodes)
        try:
            with (
                swapped_tensors(seen.model, recorder.shadows),
                traceable_attributes(modules),
                recorder.recording(),
            ):
                output = module(*twin.args, **twin.kwargs)
        except Exception:  # it is used in another way than its twin
            del recorder.nodes[n:]
            continue
        given = [recorder.value(t) for t in tensors_in((twin.args, twin.kwargs))]
        pairs = zip(tensors_in(output), tensors_in(twin.result), strict=False)
        returned = [(recorder.value(a), recorder.value(b)) for a, b in pairs if a.shape == b.shape]
        found.replays.append(Replay(name, twin, given, returned))


def _shapes(module: nn.Module) -> tuple[Any, ...]:
    return type(module), *((name, tuple(tensor.shape)) for name, tensor in module.named_parameters())
