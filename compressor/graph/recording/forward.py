"""One recorded pass of a model, on meta tensors or on real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.graph.inputs.input_axes import Arguments, input_tensors
from compressor.graph.recording.recorder import Recorder
from compressor.graph.recording.traceable_attributes import traceable_attributes, uncached
from compressor.graph.recording.values import Value
from compressor.nn.modules import evaluating, gradients, uncompiled
from compressor.nn.multihead import narrowed
from compressor.nn.quantization import unobserved
from compressor.nn.swap import swapped_tensors, unchanged
from compressor.nn.walk import every_module, named_modules
from compressor.process.generators import isolated_rng

Tensors = dict[str, tuple[Tensor, tuple[str, ...], bool]]
"""Parameters and buffers by their first name: the tensor, all its names, whether it is a buffer."""


@dataclass
class Recording:
    """What was seen: the values that parameters, inputs (tensors, in order) and outputs were."""

    recorder: Recorder
    parameters: dict[str, Value]
    inputs: list[Value]
    outputs: list[Value]
    on_meta: bool
    gradients: bool
    """Whether it ran with gradients switched on, which it would not do without."""
    model: nn.Module
    weights: set[str]
    """Which of the parameters are no buffers."""
    cached: list[Value] = field(default_factory=list)
    """What is in a key-value cache that is returned."""


@contextmanager
def tracing(model: nn.Module, *, differentiable: bool = False) -> Iterator[None]:
    """Inside, a forward can be watched: in evaluation mode, uncompiled, without gradients unless it wants to be
    ``differentiable``; nothing it stores stays.

    While functions are watched, PyTorch's attention does not take its fused path, which would hide what it does.
    """
    contexts = unchanged(model), evaluating(model), gradients(differentiable), narrowed(model), isolated_rng()
    with ExitStack() as stack:
        for context in (*contexts, uncompiled(model), unobserved(model), uncached()):
            stack.enter_context(context)
        yield


def tensors_of(model: nn.Module) -> Tensors:
    """Parameters and buffers by their first name, with all names they go by."""
    names: dict[int, list[str]] = {}
    first: dict[int, tuple[Tensor, bool]] = {}
    modules = named_modules(model)
    for is_buffer in (False, True):
        for owner, module in modules:
            for attribute, tensor in (module._buffers if is_buffer else module._parameters).items():
                if tensor is not None:
                    names.setdefault(id(tensor), []).append(f"{owner}.{attribute}" if owner else attribute)
                    first.setdefault(id(tensor), (tensor, is_buffer))
    return {names[key][0]: (tensor, tuple(names[key]), is_buffer) for key, (tensor, is_buffer) in first.items()}


class GrewError(Exception):
    """The forward added modules or parameters to the model, as some do when they run for the first time."""


def count_parameters(model: nn.Module) -> int:
    """Of all modules, under every name."""
    return sum(len(module._parameters) for module in every_module(model))


def record(
    model: nn.Module,
    tensors: Tensors,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    meta: bool,
    keep_outputs: Sequence[str] = (),
) -> Recording:
    """Run the model once inside ``tracing`` and write down what it does.

    Raises:
        GrewError: the forward built parts of the model. Besides, whatever the forward raises.
    """
    recorder = Recorder(model)
    values: dict[str, Value] = {}
    shadows: dict[str, Tensor] = {}
    for name, (tensor, names, _) in tensors.items():
        seen = torch.empty_like(tensor, device="meta") if meta else tensor.detach()
        if not meta and not tensor.requires_grad:  # what a forward may change in place
            seen = seen.clone()
        seen.requires_grad_(tensor.requires_grad and torch.is_grad_enabled())
        values[name] = recorder.define(seen, None)
        shadows.update(dict.fromkeys(names, seen))
    recorder.shadows = shadows
    if meta:
        args, kwargs = on_meta((args, kwargs))
    else:
        args, kwargs = copied((args, kwargs))  # a forward may change what it is given in place
    inputs = [recorder.value_outside(t) for t in input_tensors(args, kwargs)]
    kept = _KeptOutputs(model, keep_outputs)
    modules = recorder.modules
    shadowing = swapped_tensors(model, shadows, modules.by_every_name)
    with unchanged(model), shadowing, traceable_attributes(modules.by_name), kept.watch(), recorder.recording():
        n_parameters = count_parameters(model)
        try:
            output = model(*args, **kwargs)
        except SystemExit as error:  # else the user's own program would end here, perhaps as if all were well
            raise RuntimeError(f"it ends the program (SystemExit: {error.code})") from error
        if count_parameters(model) != n_parameters:
            raise GrewError
    outputs = [recorder.value(t) for t in [*tensors_in(output), *kept.tensors]]
    cached = [recorder.value(t) for t in tensors_in(output, caches=True)]
    weights = {name for name, (_, _, is_buffer) in tensors.items() if not is_buffer}
    return Recording(recorder, values, inputs, outputs, meta, torch.is_grad_enabled(), model, weights, cached)


def copied(inputs: Arguments) -> Arguments:
    """The same inputs in tensors of their own."""
    args, kwargs = pytree.tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, inputs)
    return args, kwargs


def on_meta(inputs: Arguments) -> Arguments:
    """The same inputs without numbers."""
    args, kwargs = pytree.tree_map(lambda t: t.to("meta") if isinstance(t, Tensor) else t, inputs)
    return args, kwargs


def tensors_in(output: Any, *, caches: bool = False) -> list[Tensor]:
    """All tensors in a model's output: tuples, dicts, named tuples and dataclasses included.

    The key-value cache of a language model is no result but a memory for its next call, where it meets keys and values
    of the same heads: its tensors are left out, or with ``caches`` are those that are returned.
    """
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(output, is_leaf=_is_cache):
        if isinstance(leaf, Tensor):
            found += [] if caches else [leaf]
        elif _is_cache(leaf):
            found += _held(leaf) if caches else []
        elif hasattr(leaf, "__dict__"):
            found += [t for item in vars(leaf).values() for t in tensors_in(item, caches=caches)]
    return found


def _held(cache: Any) -> list[Tensor]:
    """All tensors in a cache, or in a layer or cache inside it."""
    if isinstance(cache, Tensor):
        return [cache]
    return [t for leaf in pytree.tree_leaves(getattr(cache, "__dict__", ())) for t in _held(leaf)]


def _is_cache(leaf: Any) -> bool:
    """Whether an object is a cache of the transformers package, which need not be installed."""
    return any(base.__name__ == "Cache" and base.__module__.startswith("transformers.") for base in type(leaf).__mro__)


class _KeptOutputs:
    """Remembers what modules matching the user's patterns returned."""

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        self.tensors: list[Tensor] = []
        modules = model.named_modules() if patterns else ()
        self.modules = [m for name, m in modules if any(self._names(p, name) for p in patterns)]

    @staticmethod
    def _names(pattern: str, name: str) -> bool:
        """Whether the pattern means this very module: not one inside another that it matches."""
        parts = name.split(".")
        above = (".".join(parts[:n]) for n in range(1, len(parts)))
        return fnmatchcase(name, pattern) and not any(fnmatchcase(outer, pattern) for outer in above)

    @contextmanager
    def watch(self) -> Iterator[None]:
        handles = [m.register_forward_hook(lambda _m, _a, out: self._keep(out)) for m in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, output: Any) -> None:
        self.tensors += tensors_in(output)
