"""What every edit is, and the model it works on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, NoReturn, Self

from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.walk import every_module
from compressor.storage.codec import decode, encode


class Work:
    """A model that edits are applied to, one after the other. Names are those the model has at the moment."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._modules: dict[str, nn.Module] | None = None
        self._tensors: dict[str, Tensor] | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All modules by all of their names."""
        if self._modules is None:
            self._modules = dict(self.model.named_modules(remove_duplicate=False))
        return self._modules

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers by all of their names."""
        if self._tensors is None:
            found: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
            self._tensors = {**found, **dict(self.model.named_buffers(remove_duplicate=False))}
        return self._tensors

    def owner(self, name: str) -> tuple[nn.Module, str]:
        """The module that has a tensor, and what it calls it."""
        module, _, attribute = name.rpartition(".")
        return self.modules[module], attribute

    def put_tensor_(self, name: str, tensor: Tensor) -> None:
        """Put ``tensor`` in the place of the one called ``name``, under every name that one has."""
        before = self.tensors[name]
        for other in [n for n, t in self.tensors.items() if t is before]:
            module, attribute = self.owner(other)
            space = module._parameters if attribute in module._parameters else module._buffers
            space[attribute] = tensor  # type: ignore[assignment]
            self.tensors[other] = tensor

    def put_module_(self, name: str, module: nn.Module) -> None:
        """Put ``module`` in the place of the one called ``name``, wherever it is used."""
        before = self.modules[name]
        for parent in every_module(self.model):
            for key, child in parent._modules.items():
                if child is before:
                    parent._modules[key] = module
        self.forget()

    def forget(self) -> None:
        """Look names up anew: modules or tensors came or went."""
        self._modules = self._tensors = None


@dataclass(frozen=True)
class Edit:
    """One change to a model. Subclasses are frozen dataclasses whose fields are JSON values."""

    kind: ClassVar[str]

    @property
    def subject(self) -> str:
        """What is changed, by name: for messages."""
        return str(getattr(self, fields(self)[0].name))

    @property
    def tensor(self) -> str:
        """The parameter or buffer that ``sliced`` is about; empty for none."""
        return ""

    def check(self, work: Work) -> None:
        """Raise ``UsageError`` unless this can be done to ``work``, which stays as it is."""
        raise NotImplementedError

    def apply_(self, work: Work) -> None:
        """Do it. ``check`` has passed."""
        raise NotImplementedError

    def sliced(self, name: str, tensor: Tensor) -> Tensor:
        """What becomes of a tensor laid out like the parameter or buffer ``name``: a gradient, a momentum."""
        return tensor

    def copied(self, work: Work) -> dict[int, Any]:
        """What a copy of the model has in the place of which of its objects, by identity; the rest ``finish_`` does."""
        return {}

    def finish_(self, copy: Work) -> None:
        """Do the rest on a copy that was made so."""
        self.apply_(copy)

    def refuse(self, why: str) -> NoReturn:
        """Raise the error that ``check`` raises."""
        raise UsageError(
            f"The architecture's edit {self.kind} of {self.subject[:120]!r} cannot be applied to this model: {why}."
        )

    def to_json(self) -> dict[str, Any]:
        """The edit as JSON values."""
        return {"edit": self.kind, **encode(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any], place: str) -> Self:
        """Read what ``to_json`` wrote. Raises ``UsageError`` with the place of what is wrong."""
        return decode(cls, document, place)
