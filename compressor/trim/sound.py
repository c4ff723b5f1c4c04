"""Is there anything to compare? A network whose numbers are no numbers agrees with every other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph.graph import Graph
from compressor.graph.inputs.input_axes import Arguments, input_tensors
from compressor.graph.recording.forward import copied, tensors_in
from compressor.nn.modules import evaluating, gradients, uncompiled
from compressor.nn.quantization import unobserved
from compressor.nn.swap import own_copies, unchanged
from compressor.nn.tensors import to_device
from compressor.process.generators import isolated_rng
from compressor.trim.double import InPrecision


def require_finite_weights(model: nn.Module) -> None:
    """Refuse weights that are not finite, and buffers that are not numbers; masks of minus infinity are.

    Raises:
        UnsupportedModelError: the message names the first ones.
    """
    wrong = [name for name, p in model.named_parameters() if not _all(torch.isfinite, p)]
    wrong += [name for name, b in model.named_buffers() if not _all(lambda t: ~torch.isnan(t), b)]
    if wrong:
        raise UnsupportedModelError(
            f"{type(model).__name__} has weights that are not finite: {_some(wrong)}. Nothing computed with them can "
            "be compared; load or train weights that are finite."
        )


def require_finite_inputs(inputs: Arguments) -> None:
    """Raise ``UsageError`` for inputs that are not numbers; the message names them."""
    found, _ = pytree.tree_flatten_with_path(inputs)
    wrong = [
        _place(path) for path, leaf in found if isinstance(leaf, Tensor) and not _all(lambda t: ~torch.isnan(t), leaf)
    ]
    if wrong:
        raise UsageError(f"The example inputs have values that are no numbers (NaN): {_some(wrong)}. Pass finite ones.")


def require_sound(model: nn.Module, graph: Graph, inputs: Arguments) -> None:
    """Run the original on the inputs it was given, or two of its examples: does it take them, and give numbers?

    Raises:
        UnsupportedModelError: the forward raises, returns no tensors, or gives outputs that are no numbers.
        UsageError: inputs that are no numbers, or on the meta device where the model is not.
    """
    require_finite_weights(model)
    require_finite_inputs(inputs)
    if graph.inputs is not None and graph.inputs.size(inputs) > 2:
        inputs = graph.inputs.take(inputs, [0, 1])
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    if any(t.is_meta for t in input_tensors(*inputs)):
        inputs = to_device(inputs, next(model.parameters()).device)  # which says what is wrong
    with own_copies(model, graph.written):
        outputs = numbers_in(_output(model, inputs, graph.gradients))
    if not outputs:
        raise UnsupportedModelError(
            f"The forward of {type(model).__name__} returns no tensors, so nothing can be compared; return what it "
            "computes: a tensor, or tuples, lists, dicts or dataclasses of tensors."
        )
    for number, tensor in enumerate(outputs):
        if not _all(lambda t: ~torch.isnan(t), tensor):
            raise UnsupportedModelError(
                f"The original {type(model).__name__} gives values that are no numbers (NaN) in output {number}, of "
                f"shape {list(tensor.shape)}, on the example inputs: nothing can be compared with them. Pass inputs "
                "and weights for which its outputs are finite."
            )
    floating = [t for t in outputs if t.is_floating_point() and t.numel()]
    if floating and not any(bool(torch.isfinite(t).any()) for t in floating):
        raise UnsupportedModelError(
            f"All outputs of the original {type(model).__name__} are infinite on the example inputs; pass inputs and "
            "weights for which they are finite."
        )


def numbers_in(output: Any) -> list[Tensor]:
    """All tensors in an output, and its plain numbers as tensors."""
    found = tensors_in(output)
    numbers = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, (int, float, complex))]
    return [*found, *(torch.tensor(n, dtype=torch.float64) for n in numbers if not isinstance(n, complex))]


def _output(model: nn.Module, inputs: Arguments, differentiable: bool) -> Any:
    """In the model's own precision, or else in the highest that runs."""
    failure: Exception | None = None
    for dtype in (None, torch.float32, torch.float64):
        modes = evaluating(model), uncompiled(model), gradients(differentiable)  # no compiler for one pass
        with isolated_rng(seed=0), unchanged(model), unobserved(model), modes[0], modes[1], modes[2]:
            args, kwargs = copied(inputs)
            try:
                if dtype is None:
                    return model(*args, **kwargs)
                with InPrecision(dtype):
                    return model(*args, **kwargs)
            except Exception as error:  # whatever a forward may raise
                failure = failure or error
    raise UnsupportedModelError(
        f"The forward of {type(model).__name__} raises on the example inputs: {type(failure).__name__}: "
        f"{(str(failure).strip().splitlines() or ['no message'])[0]}. Check the inputs' shapes, types and values."
    ) from failure


def _all(holds: Any, tensor: Tensor) -> bool:
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout is not torch.strided:
        return True
    return bool(holds(tensor.detach()).all())


def _place(path: Sequence[Any]) -> str:
    """``input 0``, ``mask`` or ``input 0['image']``."""
    top = path[0].idx
    head = f"input {path[1].idx}" if top == 0 else str(path[1].key)
    return head + pytree.keystr(tuple(path[2:]))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
