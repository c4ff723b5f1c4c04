"""Along which axis of its inputs does a model take one example after the other?

Evidence, not convention: every axis of the inputs gets labels, and the rules carry them through a recorded pass as they
carry channels. Along a batch axis nothing happens: no label of it is fixed, summed over, normalised over or convolved
over, and it is there in an output. A time axis meets a softmax, a channel axis a weight.

Rules know some operators less well than that. Where a label was lost, the model's own numbers decide: if the last
example alone gives what it gives among the others, examples do not see each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.arrays import IntArray
from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph.graph import Graph
from compressor.graph.inputs.input_axes import (
    Arguments,
    BatchAxis,
    InputAxes,
    Variant,
    equal_axes,
    given_axes,
    input_tensors,
    variants,
)
from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.labels.labels import FREE
from compressor.graph.recording.forward import GrewError, Recording, Tensors, record, tensors_in, tensors_of, tracing
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules.apply import run_rules

_ALONG_AXES = ("conv", "pool", "upsample", "grid_sampler", "batch_norm", "group_norm", "instance_norm", "pad")
"""Operators with a batch axis of their own: first, or none. What they see elsewhere is no batch."""
_WAYS = (True, False), (False, False), (True, True), (False, True)
"""How a forward is tried: whether on meta tensors, whether with gradients switched on."""


def batch_axes(seen: Recording) -> InputAxes:
    """The batch axes of the inputs of a recording, as far as they can be told: those of one index cannot.

    Of several axes along which nothing happens, the first is it. The recording's values are as before.
    """
    flow = _Independence(seen.recorder.modules.by_name)
    for value in seen.inputs:
        value.axes = [flow.labels.fresh(n) if n > 1 else None for n in value.shape]
    given = [list(value.axes) for value in seen.inputs]
    try:
        nodes = _leading_to(seen.outputs, seen.recorder.nodes)
        run_rules(flow, nodes)
        mixed = flow.mixed(nodes)
        out = [axis for value in seen.outputs for axis in value.axes if axis is not None]
        found = set(flow.labels.find(np.concatenate(out)).tolist()) if out else set()
        for wanted in _in_order(given):
            axis = given[wanted[0]][wanted[1]]
            if axis is None or not flow.are_apart(axis):
                continue
            roots = flow.labels.find(axis)
            if not mixed & set(roots.tolist()) and set(roots.tolist()) <= found:
                return InputAxes(tuple(flow.place(axes, roots) for axes in given))
        return InputAxes((None,) * len(given))
    finally:
        for value in seen.recorder.values:
            value.axes, value.param, value.param_axes, value.used = [None] * len(value.shape), None, (), False


def _leading_to(outputs: list[Value], nodes: list[Node]) -> list[Node]:
    """The nodes that outputs with axes are made by: a loss beside them is one number for all examples."""
    needed = {value.index for value in outputs if value.shape}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.mutates or any(value.index in needed for value in node.outputs):
            needed.update(value.index for value in node.inputs)
            kept.append(node)
    return kept[::-1]


def _in_order(given: list[list[Axis]]) -> Iterator[tuple[int, int]]:
    """Places of labelled axes: first axes of all inputs, then second ones."""
    for d in range(2):
        for i, axes in enumerate(given):
            if d < len(axes) and axes[d] is not None:
                yield i, d


class _Independence(Flow):
    """Labels that only follow indices through a pass. Two sizes are run, so no size is a constant of the program."""

    def bind(self, size: Any, axis: Axis, what: str = "size") -> None:
        source = self.labels_of(size) if axis is not None else None
        if source is not None and axis is not None and len(source) == len(axis):
            self.labels.unite(source, axis)

    def keep_positions(self, value: Value, text: str) -> None:
        """What is looked up for one example is no concern of the others."""

    def are_apart(self, axis: IntArray) -> bool:
        """Whether the indices of an axis are free and distinct."""
        roots = self.labels.find(axis)
        return bool((self.labels.kinds(axis) == FREE).all()) and len(np.unique(roots)) == len(roots)

    def place(self, axes: list[Axis], roots: IntArray) -> int | None:
        """Which of the axes has these labels; ``None`` if none has."""
        for d, axis in enumerate(axes):
            if axis is not None and np.array_equal(self.labels.find(axis), roots):
                return d
        return None

    def mixed(self, nodes: list[Node]) -> set[int]:
        """Labels along which something is computed."""
        touched = [reader.labels for reader in self.readers] + [each.labels for each in self.adjustments]
        for node in nodes:
            if node.inputs and any(name in node.op for name in _ALONG_AXES):
                touched += [axis for axis in node.inputs[0].axes[1:] if axis is not None]
        if not touched:
            return set()
        return set(self.labels.factors(np.concatenate(touched), self.reason("labels nested too deep")).ravel().tolist())


def alike(whole: Recording, one: Recording) -> bool:
    """Whether two recordings are of the same function calls, each result of one as large but along one axis at most.

    What PyTorch does inside a function may differ, as it depends on how tensors lie in memory.
    """
    first, second = _results(whole), _results(one)
    return len(first) == len(second) and all(
        a == b and len(x) == len(y) and sum(n != m for n, m in zip(x, y, strict=True)) <= 1
        for (a, x), (b, y) in zip(first, second, strict=True)
    )


def _results(seen: Recording) -> list[tuple[str, tuple[int, ...]]]:
    """Every function that was called, with the shape of its result, and the outputs."""
    calls = {id(node.call or node): node for node in seen.recorder.nodes}
    found = [
        (node.call.name if node.call is not None else node.op, node.outputs[0].shape if node.outputs else ())
        for node in calls.values()
    ]
    return found + [("", value.shape) for value in seen.outputs]


def independent(model: nn.Module, inputs: Arguments, axes: InputAxes) -> bool:
    """Whether the model's numbers say that examples do not see each other: the last one, alone and among the others.

    Runs the model twice, on the inputs as they are.
    """
    n = axes.size(inputs)
    if n < 2:
        return False
    with tracing(model):
        whole = tensors_in(model(*_copied(inputs)[0], **_copied(inputs)[1]))
        last = axes.take(inputs, [n - 1])
        single = tensors_in(model(*_copied(last)[0], **_copied(last)[1]))
    if len(whole) != len(single):
        return False
    follows = 0
    for a, b in zip(whole, single, strict=True):
        if a.shape == b.shape or a.dim() != b.dim():
            continue
        changed = [d for d in range(a.dim()) if a.shape[d] != b.shape[d]]
        if len(changed) != 1 or a.shape[changed[0]] != n * b.shape[changed[0]]:
            return False
        size = b.shape[changed[0]]
        own = a.narrow(changed[0], a.shape[changed[0]] - size, size)
        if not _close(own, b):
            return False
        follows += not _close(own, a.narrow(changed[0], 0, size))  # else it proves nothing
    return follows > 0


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=0.0, atol=1e-3 * scale, equal_nan=True))


def _copied(inputs: Arguments) -> Arguments:
    args, kwargs = pytree.tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, inputs)
    return args, kwargs


def find_batch(model: nn.Module, inputs: Arguments) -> InputAxes:
    """The batch axes of inputs of any size, one example included: those of one index are tried with two.

    Runs the model, on meta tensors if it can.
    """
    tensors = tensors_of(model)
    nothing = InputAxes((None,) * len(input_tensors(*inputs)))
    for trial in _trials(inputs):
        for meta, differentiable in _WAYS:
            try:
                with tracing(model, differentiable=differentiable):
                    seen = record(model, tensors, *trial, meta=meta)
            except Exception:  # the model does not take such inputs, or not on meta tensors
                continue
            found = batch_axes(seen)
            seen.recorder.release()
            if found.batched:
                return found
            break
    return nothing


def _trials(inputs: Arguments) -> Iterator[Arguments]:
    """The inputs, with axes of one index doubled: none, all first axes, that of the first tensor, all second axes."""
    tensors = input_tensors(*inputs)
    if any(n > 1 for t in tensors for n in t.shape[:2]):
        yield inputs
    tried: list[tuple[int | None, ...]] = []
    for d in range(2):
        single = [d if t.dim() > d and t.shape[d] == 1 else None for t in tensors]
        first = next((i for i, axis in enumerate(single) if axis is not None), None)
        for chosen in (tuple(single), tuple(axis if i == first else None for i, axis in enumerate(single))):
            if first is not None and chosen not in tried:
                tried.append(chosen)
                yield InputAxes(chosen).take(inputs, [0, 0])


def record_one(
    model: nn.Module, tensors: Tensors, inputs: Arguments, batch_axis: BatchAxis, keep_outputs: Sequence[str]
) -> tuple[Recording, InputAxes | None, Arguments]:
    """Record the model on one example where there is a batch, else on the inputs as they are.

    The model runs on the inputs as they are first, on meta tensors if it can: what it refuses is refused here.

    Returns:
        The recording; the batch axes, ``None`` where nothing had to be known about them; the inputs recorded.
    """
    axes = given_axes(batch_axis, inputs)
    whole = _record_any(model, tensors, inputs, keep_outputs)
    first = next((t.shape[0] for t in input_tensors(*inputs) if t.dim() > 0), 1)
    if axes is None and first > 1:
        axes = batch_axes(whole)
        if not axes.batched:
            axes = _by_numbers(model, inputs)
    if axes is None or axes.size(inputs) == 1:
        return whole, axes, inputs
    cut = axes.one(inputs)
    failure = "the model does something else for one example than for several"
    try:
        with tracing(model, differentiable=whole.gradients):
            one = record(model, tensors, *cut, meta=whole.on_meta, keep_outputs=keep_outputs)
        if alike(whole, one) or not whole.on_meta:
            whole.recorder.release()
            return one, axes, cut
        one.recorder.release()
    except GrewError:
        raise
    except Exception as error:  # whatever a forward may raise
        failure = f"one example raises {type(error).__name__}: {first_line(error)}"
    if batch_axis != "auto":
        raise UsageError(
            f"The inputs cannot be cut along batch_axis={batch_axis!r}: {failure}. Name the axis that examples lie "
            "along, or pass batch_axis=None to trace the inputs as they are."
        )
    return whole, InputAxes((None,) * len(axes.batch)), inputs


def _by_numbers(model: nn.Module, inputs: Arguments) -> InputAxes:
    """The batch axes that labels could not tell, if the model's own numbers can."""
    tensors = input_tensors(*inputs)
    nothing = InputAxes((None,) * len(tensors))
    if any(t.is_meta for t in (*tensors, *model.parameters())):
        return nothing
    for axes in (equal_axes(inputs, 0), equal_axes(inputs, 1)):
        with suppress(Exception):  # one example alone may be refused
            if independent(model, inputs, axes):
                return axes
    return nothing


def _record_any(model: nn.Module, tensors: Tensors, inputs: Arguments, keep_outputs: Sequence[str]) -> Recording:
    """On meta tensors if the forward can, else on the inputs; without gradients if it can.

    Raises:
        UnsupportedModelError: it runs in no way.
    """
    failure: Exception | None = None
    for meta, differentiable in _WAYS:
        try:
            with tracing(model, differentiable=differentiable):
                return record(model, tensors, *inputs, meta=meta, keep_outputs=keep_outputs)
        except GrewError:
            raise
        except Exception as error:  # whatever a forward may raise
            failure = error if failure is None or not differentiable else failure
    raise UnsupportedModelError(
        f"The forward of {type(model).__name__} raises on the example inputs: {type(failure).__name__}: "
        f"{first_line(failure)}. Check the inputs' shapes and types."
    ) from failure


def first_line(error: BaseException | None) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or ["no message"])[0]


def other_sizes(model: nn.Module, graph: Graph, inputs: Arguments) -> Iterator[Variant]:
    """The inputs as other numbers of examples and in other lengths that the model takes, to check a result with.

    Integers are those of the inputs over and over, so that they stay in their range. The model runs on each, on meta
    tensors if the trace did.
    """
    tensors = tensors_of(model)

    def takes(changed: Arguments) -> bool:
        try:
            with tracing(model, differentiable=graph.gradients):
                record(model, tensors, *changed, meta=graph.on_meta).recorder.release()
        except Exception:  # whatever a forward may raise
            return False
        return True

    axes = graph.inputs if graph.inputs is not None else find_batch(model, inputs)
    yield from variants(axes, inputs, takes)
