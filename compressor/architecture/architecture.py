"""``Architecture``: the decision, as edits that make the compressed network of a fresh original.

It needs no graph to be applied. Architectures compose: what a second search did to the result of a first is one
architecture together with it, which applies to the first original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from compressor.architecture.edits import (
    Edit,
    Remove,
    Renumber,
    ReplaceConvolution,
    Resample,
    SetSizes,
    Slice,
    Work,
    edit_from_json,
)
from compressor.architecture.edits.slice import axes_of
from compressor.architecture.history import remember
from compressor.errors import UsageError
from compressor.nn.copying import skeleton
from compressor.storage.codec import Keys, decode

_E = TypeVar("_E", bound=Edit)

#: 1 had what is kept by parameter, 2 has a list of edits; both are read.
SCHEMA_VERSION = 2


@dataclass(eq=False)
class Architecture:
    """What is done to a model.

    Attributes:
        model_class: qualified name of the original's class.
        shapes: shape of every parameter and buffer of the original.
        edits: what is done to it, in order.
        blocks: names of the residual branches taken out.
        groups: per group name, how many units it had and which are kept.
        aliases: other names of tied parameters, by their first name.
    """

    model_class: str
    shapes: dict[str, list[int]]
    edits: tuple[Edit, ...] = ()
    blocks: list[str] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def indices(self) -> dict[str, dict[int, list[int]]]:
        """Per parameter or buffer, per axis, the original's indices that are kept, ascending; only where some go."""
        found: dict[str, dict[int, list[int]]] = {}
        for edit in self.edits:
            if isinstance(edit, Slice):
                own = found.setdefault(edit.parameter, {})
                for axis, kept in edit.kept.items():
                    own[axis] = [own[axis][i] for i in kept] if axis in own else list(kept)
            elif isinstance(edit, ReplaceConvolution):  # no index of the new kernel is one of the old
                found[edit.tensor] = {axis: kept for axis, kept in found.get(edit.tensor, {}).items() if axis < 2}
        return found

    @cached_property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """Per module, attributes that hold sizes and their new values."""
        found: dict[str, dict[str, Any]] = {}
        for edit in self._of(SetSizes):
            found.setdefault(edit.module, {}).update(edit.values)
        return found

    @cached_property
    def removed(self) -> dict[str, str]:
        """Modules and parameters taken out, with what replaces each, see ``Remove``."""
        return {edit.name: edit.by for edit in self._of(Remove)}

    @cached_property
    def resolutions(self) -> list[Resample]:
        """Branches that compute on fewer samples."""
        return self._of(Resample)

    def _of(self, kind: type[_E]) -> list[_E]:
        return [edit for edit in self.edits if isinstance(edit, kind)]

    def kept(self, fqn: str, axis: int) -> list[int]:
        """The indices kept of a parameter or buffer along an axis; none if its module was taken out.

        Raises:
            UsageError: there is no such parameter or axis.
        """
        name = self.first_name(fqn)
        if name not in self.shapes:
            raise UsageError(f"The architecture has no parameter {fqn!r}; it has {len(self.shapes)}, see .shapes.")
        shape = self.shapes[name]
        if not -len(shape) <= axis < len(shape):
            raise UsageError(f"{fqn!r} has shape {shape}; axis {axis} is out of range.")
        axis %= len(shape)
        if self.is_removed(name):
            return []
        if axis > 1 and (replaced := [e for e in self._of(ReplaceConvolution) if e.tensor == name]):
            return list(range(replaced[-1].kernel_size[axis - 2]))
        return list(self.indices.get(name, {}).get(axis, range(shape[axis])))

    def first_name(self, fqn: str) -> str:
        """The name that a tied parameter goes by in ``shapes`` and ``indices``."""
        return next((first for first, names in self.aliases.items() if fqn in names), fqn)

    def is_removed(self, fqn: str) -> bool:
        """Whether a parameter or buffer is gone under all of its names."""
        return bool(self.removed) and all(self.is_gone(name) for name in self.aliases.get(fqn, [fqn]))

    def is_gone(self, name: str) -> bool:
        """Whether there is nothing of this name any more: it, or a module around it, was taken out."""
        while name:
            if name in self.removed:
                return True
            name = name.rpartition(".")[0]
        return False

    def slice(self, fqn: str, tensor: Tensor) -> Tensor:
        """What becomes of a tensor that is laid out like the parameter: a gradient, a momentum. Always a copy.

        Of a parameter that was taken out an empty tensor is left.
        """
        if self.is_removed(fqn):
            return tensor.new_empty(0)
        sliced = tensor.detach()
        for edit in self._by_tensor.get(fqn, ()):
            sliced = edit.sliced(fqn, sliced)
        return sliced.clone() if sliced.data_ptr() == tensor.data_ptr() else sliced

    def put_back_(self, fqn: str, tensor: Tensor, kept: Tensor) -> None:
        """Write ``kept``, laid out as ``slice`` gives it, to where it came from; the rest of ``tensor`` stays."""
        if self.is_removed(fqn):
            return
        own = self._by_tensor.get(fqn, ())
        for edit in reversed(own):
            if isinstance(edit, Renumber):
                kept = edit.restored(kept)
        if any(isinstance(edit, ReplaceConvolution) for edit in own):
            numbers = torch.arange(1, tensor.numel() + 1, device=tensor.device).reshape(tensor.shape)
            numbers = self.slice(fqn, numbers)  # 0 for what was not there before
            places_before = torch.unravel_index(numbers[numbers > 0] - 1, tensor.shape)
            tensor.detach()[places_before] = kept.detach()[numbers > 0]
            return
        indices, axes = self.indices.get(fqn, {}), range(tensor.ndim)
        places = [torch.as_tensor(indices.get(d, range(tensor.shape[d])), device=tensor.device) for d in axes]
        where = tuple(place.reshape([-1 if d == e else 1 for e in axes]) for d, place in enumerate(places))
        tensor.detach()[where] = kept.detach()

    @cached_property
    def _by_tensor(self) -> dict[str, list[Edit]]:
        found: dict[str, list[Edit]] = {}
        for edit in self.edits:
            if edit.tensor:
                found.setdefault(edit.tensor, []).append(edit)
        return found

    def apply_(self, model: nn.Module) -> nn.Module:
        """Turn a fresh original model into the compressed one, in place, without tracing.

        Raises:
            UsageError: the model's parameters have other names or shapes than the original's, or an edit does not fit:
                it names what the model has not, or more than it has. Nothing is changed then.
        """
        self._require_original(model)
        rehearsal = Work(skeleton(model))
        for edit in self.edits:
            edit.check(rehearsal)
            edit.apply_(rehearsal)
        work = Work(model)
        for edit in self.edits:
            edit.apply_(work)
        remember(model, self.to_json())
        return model

    def without(self, kind: type[Edit]) -> Architecture:
        """The same without edits of one kind."""
        return replace(self, edits=tuple(edit for edit in self.edits if not isinstance(edit, kind)))

    def then(self, second: Architecture) -> Architecture:
        """This architecture and, on its result, ``second``: one that applies to this one's original.

        >>> early = Architecture("Linear", {"weight": [4, 8]}, (Slice("weight", {1: [0, 2, 4, 6]}),))
        >>> late = Architecture("Linear", {"weight": [4, 4]}, (Slice("weight", {1: [1, 3]}),))
        >>> early.then(late).kept("weight", 1)
        [2, 6]
        """
        blocks = [*self.blocks, *(name for name in second.blocks if name not in self.blocks)]
        groups = dict(self.groups)
        for name, group in second.groups.items():
            before = self.groups.get(name)
            if before is not None and len(before["kept"]) == group["size"]:
                group = {**group, "size": before["size"], "kept": [before["kept"][i] for i in group["kept"]]}
            groups[name] = group
        aliases = {**second.aliases, **self.aliases}
        return Architecture(self.model_class, self.shapes, (*self.edits, *second.edits), blocks, groups, aliases)

    def _require_original(self, model: nn.Module) -> None:
        tensors = Work(model).tensors
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise UsageError(
                    f"The model has no parameter {name!r}, which the architecture ({self.model_class}) has."
                )
            if is_lazy(tensors[name]):
                raise UsageError(
                    f"{name!r} has no shape before the first forward (a lazy module); run the model once, "
                    "then apply the architecture or load the folder."
                )
            if list(tensors[name].shape) != shape:
                raise UsageError(
                    f"{name!r} has shape {list(tensors[name].shape)}; the architecture was made for {shape[:8]}. "
                    "Build the model with the arguments of the original."
                )
        for first, names in self.aliases.items():
            for name in (first, *names):
                there = first in self.shapes and name in tensors
                if not there or tensors[name].shape != tensors[first].shape:
                    raise UsageError(f"architecture.aliases: {name!r} is no other name of {first!r} in this model.")

    def to_json(self) -> dict[str, Any]:
        """A JSON document, with a schema version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model_class": self.model_class,
            "parameters": self.shapes,
            "aliases": self.aliases,
            "edits": [edit.to_json() for edit in self.edits],
            "blocks": self.blocks,
            "groups": self.groups,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Architecture:
        """Read what ``to_json`` wrote, in this version of the program or an earlier one.

        Raises:
            UsageError: a newer schema version, or no architecture at all.
        """
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version == 1:
            return _from_schema_1(document)
        if version != SCHEMA_VERSION:
            newer = type(version) is int and version > SCHEMA_VERSION
            raise UsageError(
                f"The architecture has schema version {version!r}; this program reads 1 to {SCHEMA_VERSION}"
                f"{': update compressor' if newer else ''}."
            )
        found = decode(_Document, document, "architecture")
        edits = tuple(edit_from_json(edit, f"architecture.edits[{i}]") for i, edit in enumerate(found.edits))
        return cls(found.model_class, found.parameters, edits, found.blocks, found.groups, found.aliases)

    @classmethod
    def of(
        cls,
        model_class: str,
        shapes: dict[str, list[int]],
        *,
        indices: Mapping[str, Mapping[int, list[int]]] | None = None,
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
        removed: Mapping[str, str] | None = None,
        resolutions: Iterable[Resample] = (),
        renumbered: Mapping[str, list[int]] | None = None,
        blocks: list[str] | None = None,
        groups: dict[str, dict[str, Any]] | None = None,
        aliases: dict[str, list[str]] | None = None,
    ) -> Architecture:
        """An architecture from what one search decided, in an order in which each edit fits.

        Arguments are named like the properties. ``renumbered``: buffers whose entries are positions along some axis,
        with the positions kept there, ascending.
        """
        edits: list[Edit] = [Slice(name, dict(kept)) for name, kept in (indices or {}).items()]
        edits += [Renumber(name, kept) for name, kept in (renumbered or {}).items()]
        edits += [Remove(name, by) for name, by in (removed or {}).items()]
        edits += [SetSizes(name, dict(values)) for name, values in (attributes or {}).items()]
        return cls(model_class, shapes, (*edits, *resolutions), blocks or [], groups or {}, aliases or {})


_Groups = dict[str, Annotated[dict[str, Any], Keys({"size": int, "kept": list[int]})]]


@dataclass(frozen=True)
class _Document:
    model_class: str
    parameters: dict[str, list[int]]
    edits: list[Any]
    blocks: list[str] = field(default_factory=list)
    groups: _Groups = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _OldParameter:
    shape: list[int]
    kept: dict[str, list[int]] | None = None


@dataclass(frozen=True)
class _OldDocument:
    model_class: str
    parameters: dict[str, _OldParameter]
    attributes: dict[str, dict[str, int | list[int] | dict[str, int]]] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    groups: _Groups = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    resolutions: list[
        Annotated[dict[str, Any], Keys({"inputs": list[str], "output": str, "sizes": list[list[int]]})]
    ] = field(default_factory=list)
    renumbered: dict[str, list[int]] = field(default_factory=dict)


def _from_schema_1(document: dict[str, Any]) -> Architecture:
    found = decode(_OldDocument, document, "architecture")
    return Architecture.of(
        found.model_class,
        {name: entry.shape for name, entry in found.parameters.items()},
        indices={
            name: axes_of(entry.kept, f"architecture.parameters.{name[:60]}.kept")
            for name, entry in found.parameters.items()
            if entry.kept is not None
        },
        attributes=found.attributes,
        removed=found.removed,
        resolutions=[
            Resample(each["output"], each["inputs"], each["sizes"], str(each.get("block", "")))
            for each in found.resolutions
        ],
        renumbered=found.renumbered,
        blocks=found.blocks,
        groups=found.groups,
        aliases=found.aliases,
    )
