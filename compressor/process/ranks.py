"""The processes that train one model together: the same masks on all of them, after every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError


class Ranks:
    """The processes of one group; alone, nothing is exchanged.

    Args:
        group: process group of ``torch.distributed``; None is the one of the ``DistributedDataParallel`` that ``model``
            is, or the default one, if there is one.
    """

    def __init__(self, model: nn.Module, group: Any = None) -> None:
        if group is None and isinstance(model, nn.parallel.DistributedDataParallel):
            group = model.process_group
        self._group = group

    @property
    def size(self) -> int:
        """How many there are now; 1 without ``torch.distributed``."""
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            return 1
        return max(1, distributed.get_world_size(self._group))

    def agree(self, mine: dict[str, Any], alike: Sequence[str]) -> dict[str, Any]:
        """What the first process has.

        Args:
            alike: entries that have to be the same everywhere.

        Raises:
            UsageError: they are not; on every process.
        """
        found: list[dict[str, Any]] = [{} for _ in range(self.size)]
        torch.distributed.all_gather_object(found, mine, self._group)
        for name in alike:
            other = next((rank for rank, each in enumerate(found) if each.get(name) != found[0].get(name)), None)
            if other is not None:
                raise UsageError(
                    f"Processes 0 and {other} of the group train something else: {name} differs. Prepare the same "
                    "model with the same weights and arguments on all of them (wrap it in DistributedDataParallel "
                    "first); for work that each does by itself pass process_group=, a group of one."
                )
        return found[0]

    def mean(self, gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        """The mean of each over all processes; None where no process has one."""
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]
        given = filled[0].new_tensor([0.0 if g is None else 1.0 for g in gradients], dtype=torch.float64)
        flat = torch.cat([given, *(g.reshape(-1).double() for g in filled)])
        torch.distributed.all_reduce(flat, group=self._group)
        counts, rest = flat[: len(filled)].tolist(), flat[len(filled) :] / self.size
        means = torch.split(rest, [g.numel() for g in filled])
        return [
            mean.reshape(g.shape).to(g.dtype) if count else None
            for mean, g, count in zip(means, filled, counts, strict=True)
        ]
