"""``Architecture``: the decision. What of every parameter is kept, which attributes change, which blocks go.

It needs no graph to be applied: a fresh original model becomes the trimmed one by slicing alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn import multihead, resampling
from compressor.nn.stubs import stand_in
from compressor.nn.tensors import laid_out_like
from compressor.nn.walk import every_module
from compressor.storage.codec import Keys, decode

SCHEMA_VERSION = 1


def set_size_(module: nn.Module, name: str, value: Any) -> None:
    """Give an attribute that holds one or several sizes another value, of the type it has."""
    current = getattr(module, name, None)
    setattr(
        module, name, dict(value) if isinstance(value, dict) else tuple(value) if isinstance(current, tuple) else value
    )
    if name == "axes_lengths" and isinstance(getattr(module, "_axes_lengths", None), tuple):
        vars(module)["_axes_lengths"] = tuple(value.items())  # einops computes with a second copy


@dataclass
class Architecture:
    """What is kept of a model.

    Attributes:
        model_class: qualified name of the original's class.
        shapes: shape of every parameter and buffer of the original.
        indices: per parameter or buffer, per axis, the indices kept, ascending; only where some are removed.
        attributes: per module, attributes and their new values.
        removed: modules taken out of the model, with what replaces each, see ``compressor.nn.stubs``; and parameters of
            modules that stay, replaced by ``"scalar"``.
        blocks: names of the residual branches taken out.
        groups: per group name, how many units it had and which are kept.
        aliases: other names of tied parameters, by their first name.
        resolutions: branches that compute on fewer samples: the modules whose input is resampled, the module whose
            output is resampled back, and per spatial axis the samples outside and inside.
        renumbered: buffers whose entries are positions along some axis, with the positions kept there, ascending.
    """

    model_class: str
    shapes: dict[str, list[int]]
    indices: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    resolutions: list[dict[str, Any]] = field(default_factory=list)
    renumbered: dict[str, list[int]] = field(default_factory=dict)

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
        """What is kept of a tensor that is laid out like the parameter: a gradient, a momentum. Always a copy.

        Of a parameter that was taken out an empty tensor is left.
        """
        if self.is_removed(fqn):
            return tensor.new_empty(0)
        sliced = tensor.detach()
        for axis, indices in self.indices.get(fqn, {}).items():
            sliced = sliced.index_select(axis, torch.tensor(indices, device=tensor.device))
        if fqn in self.renumbered:
            positions = torch.tensor(self.renumbered[fqn], device=tensor.device)
            return torch.searchsorted(positions, sliced.to(positions.dtype)).to(tensor.dtype)
        return sliced.clone() if sliced.data_ptr() == tensor.data_ptr() else sliced

    def put_back_(self, fqn: str, tensor: Tensor, kept: Tensor) -> None:
        """Write ``kept``, laid out as ``slice`` gives it, to where it came from; the rest of ``tensor`` stays."""
        if self.is_removed(fqn):
            return
        if fqn in self.renumbered:
            kept = torch.tensor(self.renumbered[fqn], device=kept.device)[kept.long()].to(kept.dtype)
        indices, axes = self.indices.get(fqn, {}), range(tensor.ndim)
        places = [torch.as_tensor(indices.get(d, range(tensor.shape[d])), device=tensor.device) for d in axes]
        where = tuple(place.reshape([-1 if d == e else 1 for e in axes]) for d, place in enumerate(places))
        tensor.detach()[where] = kept.detach()

    def apply_(self, model: nn.Module) -> nn.Module:
        """Turn a fresh original model into the trimmed one, in place, without tracing.

        Raises:
            UsageError: the model's parameters have other names or shapes than the original's, or the architecture names
                what the model has not, or more than it has. Nothing is changed then.
        """
        from compressor.architecture.fitting import require_fit

        require_fit(self, model)
        tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        tensors.update(model.named_buffers(remove_duplicate=False))
        modules = dict(model.named_modules(remove_duplicate=False))
        for name in self.indices:
            new = self.resized(name, tensors[name])
            for alias in self.aliases.get(name, [name]):
                owner, _, attribute = alias.rpartition(".")
                space = modules[owner]._parameters if isinstance(new, nn.Parameter) else modules[owner]._buffers
                space[attribute] = new
        from compressor.architecture.history import remember

        self.finish_(model)
        remember(model, self)
        return model

    def resized(self, name: str, tensor: Tensor) -> Tensor:
        """The parameter or buffer after the trim: laid out in memory as before (channels last, say); a parameter stays
        one and keeps ``requires_grad``."""
        sliced = laid_out_like(tensor, self.slice(name, tensor))
        return nn.Parameter(sliced, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else sliced

    def stubs(self, model: nn.Module) -> dict[int, nn.Module]:
        """What replaces the modules of ``model`` that are taken out, by their identity."""
        modules = dict(model.named_modules(remove_duplicate=False))
        return {
            id(modules[name]): stand_in(kind, modules[name]) for name, kind in self.removed.items() if name in modules
        }

    def finish_(self, model: nn.Module) -> None:
        """Set attributes and take out modules, once parameters are sliced."""
        stubs = self.stubs(model)
        for parent in every_module(model):
            for name, child in parent._modules.items():
                if id(child) in stubs:
                    parent._modules[name] = stubs[id(child)]
        modules = dict(model.named_modules(remove_duplicate=False))
        for name, kind in self.removed.items():
            owner, _, attribute = name.rpartition(".")
            if kind == "scalar":
                like = modules[owner]._parameters.pop(attribute, None)
                dtype = like.dtype if like is not None else None
                device = like.device if like is not None else None
                modules[owner].register_buffer(attribute, torch.zeros((), dtype=dtype, device=device), persistent=False)
        for module in modules.values():
            if isinstance(module, nn.RNNBase):  # keeps a list of its weights
                module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
        for name, values in self.attributes.items():
            if multihead.WIDTHS[0] in values and multihead.can_narrow(modules[name]):
                multihead.narrow_(modules[name])
            for attribute, value in values.items():
                set_size_(modules[name], attribute, value)
        for each in self.resolutions:
            resampling.attach_(model, each["inputs"], each["output"], each["sizes"])

    def to_json(self) -> dict[str, Any]:
        """A JSON document, with a schema version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model_class": self.model_class,
            "groups": self.groups,
            "attributes": self.attributes,
            "removed": self.removed,
            "blocks": self.blocks,
            "aliases": self.aliases,
            "resolutions": self.resolutions,
            "renumbered": self.renumbered,
            "parameters": {
                name: {
                    "shape": shape,
                    **({"kept": {str(a): i for a, i in self.indices[name].items()}} if name in self.indices else {}),
                }
                for name, shape in self.shapes.items()
            },
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Architecture:
        """Read what ``to_json`` wrote.

        Raises:
            UsageError: another schema version, or no architecture at all.
        """
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(f"The architecture has schema version {version!r}; this program reads {SCHEMA_VERSION}.")
        found = decode(_Document, document, "architecture")
        return cls(
            model_class=found.model_class,
            shapes={name: entry.shape for name, entry in found.parameters.items()},
            indices={
                name: {_axis(axis, name): indices for axis, indices in entry.kept.items()}
                for name, entry in found.parameters.items()
                if entry.kept is not None
            },
            attributes=found.attributes,
            removed=found.removed,
            blocks=found.blocks,
            groups=found.groups,
            aliases=found.aliases,
            resolutions=found.resolutions,
            renumbered=found.renumbered,
        )


@dataclass(frozen=True)
class _Parameter:
    shape: list[int]
    kept: dict[str, list[int]] | None = None


@dataclass(frozen=True)
class _Document:
    """An architecture as JSON."""

    model_class: str
    parameters: dict[str, _Parameter]
    attributes: dict[str, dict[str, int | list[int] | dict[str, int]]] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    groups: dict[str, Annotated[dict[str, Any], Keys({"size": int, "kept": list[int]})]] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    resolutions: list[
        Annotated[dict[str, Any], Keys({"inputs": list[str], "output": str, "sizes": list[list[int]]})]
    ] = field(default_factory=list)
    renumbered: dict[str, list[int]] = field(default_factory=dict)


def _axis(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 2:
        raise UsageError(f"architecture.parameters.{name[:60]}.kept has the key {text[:20]!r}; expected an axis.")
    return int(text)
