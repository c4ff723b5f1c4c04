"""How a session follows a model that was sharded after ``compressor.prepare`` (``fully_shard``, ``nn.sharded``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.masks import Masking
from compressor.masks.gradients import MaskGradients
from compressor.nn.copying import deep_copy
from compressor.nn.sharded import at_rest, become_, gathered, is_sharded, require_supported, whole
from compressor.process.ranks import Ranks
from compressor.train.optim import optimizer_parameters


class Sharding:
    """Whether a model is sharded, and what its masks act on since."""

    def __init__(self, model: nn.Module, masking: Masking, gradients: MaskGradients, ranks: Ranks) -> None:
        self.model, self._masking, self._gradients, self._ranks = model, masking, gradients, ranks
        self._device = next(model.parameters()).device
        self.is_on = False

    def follow(self, *, running: bool = False) -> None:
        """Look whether the model has been sharded, and let masks act on its shares if so. Collective the first time.

        Args:
            running: whether this is in a forward of the model.

        Raises:
            UsageError: masks cannot follow how it was sharded.
        """
        if self.is_on or not is_sharded(self.model):
            return
        parameters = at_rest(self.model, running=running)
        require_supported(self.model, parameters, self._masking.parameters, self._ranks, self._device)
        self._masking.follow(parameters)
        self._gradients.weights = list({id(p): p for p in parameters.values() if p.requires_grad}.values())
        self.is_on = True

    def share_buffers(self) -> None:
        """Give all processes the buffers of the first, as ``DistributedDataParallel`` does before a forward; after the
        last none may come. Those of a sharded model are shared where it is gathered. Collective."""
        if not self.is_on:
            self._ranks.copy_(list(self.model.buffers()))

    def network(self) -> nn.Module:
        """The model itself, or a plain copy of it with whole weights. Collective where it is sharded."""
        return gathered(self.model, self._ranks) if self.is_on else self.model

    def become_(self, small: nn.Module) -> None:
        """Make the model a copy of ``small``. Raises ``UsageError`` if that has been sharded."""
        if is_sharded(small):
            raise UsageError("shrink_() copies what finish() returned, which is sharded; call it before fully_shard.")
        become_(self.model, deep_copy(small))

    @contextmanager
    def whole_state(self, optimizer: torch.optim.Optimizer) -> Iterator[nn.Module]:
        """Inside, the optimizer remembers whole tensors of the parameters it has, which are at rest; if that fails, it
        remembers what it did. Yields the model."""
        if not self.is_on:
            yield self.model
            return
        at_rest(self.model)
        before = {parameter: optimizer.state.get(parameter) for parameter in optimizer_parameters(optimizer)}
        for parameter, state in before.items():
            if state is not None:
                optimizer.state[parameter] = {key: _whole(value) for key, value in state.items()}
        try:
            yield self.model
        except Exception:
            optimizer.state.update({parameter: state for parameter, state in before.items() if state is not None})
            raise


def _whole(value: Any) -> Any:
    return whole(value) if isinstance(value, Tensor) else value
