"""Whether a decision can be applied to a model: it names what the model has, and only ever makes it smaller.

An ``Architecture`` may come from a file. Applied, it replaces tensors, modules and attributes by name; here every name
and every value is looked at before anything is changed. Attributes that may be set are those a trim sets: whole
numbers, or rows of them, that the module itself holds. Nothing else of a module can be reached, and no number can grow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn import multihead

if TYPE_CHECKING:
    from compressor.architecture.architecture import Architecture

_STUB = re.compile(r"(identity|first|zero|zeros)(\+\d)?")
_MOST_SAMPLES = 2**25  # of a resampling matrix


def require_fit(architecture: Architecture, model: nn.Module) -> None:
    """Raise ``UsageError`` unless everything in ``architecture`` can be done to ``model``."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    modules = dict(model.named_modules(remove_duplicate=False))
    _shapes(architecture, tensors)
    _indices(architecture)
    _removed(architecture, model, modules)
    for name, values in architecture.attributes.items():
        if name not in modules:
            _refuse(f"attributes.{name}", "the model has no such module")
        for attribute, value in values.items():
            _attribute(modules[name], attribute, value, f"attributes.{name}.{attribute}")
    for name, positions in architecture.renumbered.items():
        _renumbered(name, positions, architecture, tensors)
    for number, each in enumerate(architecture.resolutions):
        _resolution(each, modules, f"resolutions[{number}]")


def _shapes(architecture: Architecture, tensors: Mapping[str, Tensor]) -> None:
    for name, shape in architecture.shapes.items():
        if name not in tensors:
            raise UsageError(
                f"The model has no parameter {name!r}, which the architecture ({architecture.model_class}) has."
            )
        if list(tensors[name].shape) != shape:
            raise UsageError(
                f"{name!r} has shape {list(tensors[name].shape)}; the architecture was made for {shape[:8]}. "
                "Build the model with the arguments of the original."
            )
    for first, names in architecture.aliases.items():
        for name in (first, *names):
            if first not in architecture.shapes or name not in tensors or tensors[name].shape != tensors[first].shape:
                _refuse(f"aliases.{first}", f"{name!r} is no other name of a tensor of the model")


def _indices(architecture: Architecture) -> None:
    for name, axes in architecture.indices.items():
        for axis, kept in axes.items():
            place = f"parameters.{name}.kept.{axis}"
            if name not in architecture.shapes or not 0 <= axis < len(architecture.shapes[name]):
                _refuse(place, "the parameter has no such axis")
            length = architecture.shapes[name][axis]
            if kept and not (kept[0] >= 0 and kept[-1] < length and all(a < b for a, b in pairwise(kept))):
                _refuse(place, f"indices must ascend within 0 to {length - 1}")


def _removed(architecture: Architecture, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, kind in architecture.removed.items():
        place = f"removed.{name}"
        if kind == "scalar" and name not in parameters:
            _refuse(place, "the model has no such parameter")
        if kind != "scalar" and (not name or name not in modules):
            _refuse(place, "the model has no such module")
        if kind != "scalar" and not _STUB.fullmatch(kind):
            _refuse(place, f"{kind[:40]!r} replaces nothing; known are identity, first, zero, zeros and scalar")


def _attribute(module: nn.Module, name: str, value: Any, place: str) -> None:
    if name in multihead.WIDTHS and multihead.can_narrow(module):
        current = module.__dict__["embed_dim"]
    else:
        current = vars(module).get(name)
    if type(current) is int:
        pairs = [(current, value)]
    elif isinstance(current, (tuple, list)) and isinstance(value, list) and len(current) == len(value):
        pairs = list(zip(current, value, strict=True))
    elif isinstance(current, dict) and isinstance(value, dict) and current.keys() == value.keys():
        pairs = [(current[key], value[key]) for key in current]
    elif isinstance(current, (tuple, list)) and isinstance(value, list) and _is_order(current) and _is_order(value):
        pairs = [(len(current), len(value))]  # of what is kept
    else:
        pairs = []
    if not pairs or not all(type(a) is int and type(b) is int for a, b in pairs):
        _refuse(place, f"it is no size that a {type(module).__name__} holds, or not one of this form")
    if not all(0 <= b <= max(a, 0) for a, b in pairs):
        _refuse(place, f"{value!r} does not lie within 0 and {current}, what the original has")


def _is_order(numbers: Sequence[Any]) -> bool:
    return all(type(n) is int for n in numbers) and sorted(numbers) == list(range(len(numbers)))


def _renumbered(name: str, positions: list[int], architecture: Architecture, tensors: Mapping[str, Tensor]) -> None:
    place = f"renumbered.{name}"
    tensor = tensors.get(name)
    if tensor is None or tensor.dim() != 1 or tensor.is_floating_point() or tensor.is_complex():
        _refuse(place, "the model has no such row of positions")
    entries = tensor.tolist() if name not in architecture.indices else [
        int(tensor[i]) for i in architecture.indices[name].get(0, range(len(tensor)))
    ]  # fmt: skip
    if sorted(entries) != positions:
        _refuse(place, "the positions kept are not those that the buffer's kept entries point at")


def _resolution(entry: Mapping[str, Any], modules: Mapping[str, nn.Module], place: str) -> None:
    for name in (*entry["inputs"], entry["output"]):
        if name not in modules:
            _refuse(place, f"the model has no module {name[:60]!r}")
    if not 0 < len(entry["sizes"]) <= 4:
        _refuse(place, "sizes must have one pair for each spatial axis")
    for pair in entry["sizes"]:
        if len(pair) != 2 or not 1 <= pair[1] <= pair[0] or pair[0] * pair[1] > _MOST_SAMPLES:
            _refuse(place, f"{pair[:4]} are no samples outside and inside a branch")


def _refuse(place: str, why: str) -> NoReturn:
    raise UsageError(f"architecture.{place[:200]} cannot be applied to this model: {why}.")
