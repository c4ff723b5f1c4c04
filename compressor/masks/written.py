"""What a forward under masks writes into its modules: buffers that it changes, parameters that it replaces.

Codebooks, queues of keys and the vectors of spectral normalisation are buffers that a forward changes, and reads. While
it runs it has products of them with masks, so what it wrote goes back to the buffers after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UnsupportedModelError
from compressor.masks.part_stack import Place


@dataclass
class Written:
    """A buffer, the modules that have it, and what it is multiplied by while a forward runs."""

    owners: list[tuple[nn.Module, str]]
    buffer: Tensor
    factors: Sequence[Tensor]

    @contextmanager
    def carried(self) -> Iterator[None]:
        """What is written inside goes to the buffer, but for what the masks leave out, which stays as it was."""
        module, attribute = self.owners[0]
        product: Any = module._buffers[attribute]
        before = product.detach().clone()  # versions do not tell of what is written past autograd
        try:
            yield
        finally:
            for module, attribute in self.owners:
                found: Any = module._buffers.get(attribute)
                if found is not product or not torch.equal(found, before):
                    self._carry(found)

    @torch.no_grad()
    def _carry(self, found: Tensor | None) -> None:
        if found is None or found.shape != self.buffer.shape:
            raise UnsupportedModelError(
                f"The forward replaces a buffer of shape {tuple(self.buffer.shape)} by "
                f"{'none' if found is None else f'one of {tuple(found.shape)}'}, and masks act on it; exclude the "
                "modules that read it."
            )
        kept = torch.ones((), device=found.device)
        for factor in self.factors:
            kept = kept * factor
        self.buffer.copy_(torch.where(kept != 0, found, self.buffer))


@contextmanager
def stepping_aside(places: Sequence[Place]) -> Iterator[None]:
    """Inside, no parameter is replaced whose product with masks stands in an instance.

    Raises:
        UnsupportedModelError: the forward puts another tensor in the place of such a parameter, which masks would miss.
    """
    spaces = {id(space): space for space, _ in places if "_parameters" in space}
    names: dict[int, set[str]] = {key: set() for key in spaces}
    for space, attribute in places:
        if id(space) in names:
            names[id(space)].add(attribute)
    before = {key: space["_parameters"] for key, space in spaces.items()}
    try:
        for key, space in spaces.items():
            space["_parameters"] = _Parameters(before[key], names[key])
        yield
    finally:
        for key, space in spaces.items():
            found = space["_parameters"]
            if len(found) != len(before[key]) or any(found[name] is not before[key].get(name) for name in found):
                before[key].clear()
                before[key].update(found)
            space["_parameters"] = before[key]


class _Parameters(dict[str, Any]):
    """A module's parameters, of which some are not to be replaced."""

    def __init__(self, parameters: dict[str, Any], masked: set[str]) -> None:
        super().__init__(parameters)
        self._masked = masked

    def __setitem__(self, name: str, tensor: Any) -> None:
        if name in self._masked and tensor is not self.get(name):
            raise UnsupportedModelError(
                f"The forward calls a module with another {name} than its own (torch.func.functional_call, or an "
                "assignment), which masks would not reach in a loop of your own: exclude that module "
                "(scope=Scope(exclude=...)), or call compressor.compress."
            )
        super().__setitem__(name, tensor)
