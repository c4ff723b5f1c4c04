"""The processes that work on one thing together: what they tell each other, and what only the first of them does.

Whoever works in several processes looks up ``current()``: alone, nothing is exchanged and nothing is different.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, ProcessLostError, UsageError

Found = TypeVar("Found")

DIFFER = (
    "Processes 0 and {other} of the group train something else: {name} differs. Prepare the same model with the same "
    "weights and arguments on all of them (wrap it in DistributedDataParallel first); for work that each does by "
    "itself pass process_group=, a group of one."
)


class Ranks:
    """The processes of one group.

    Args:
        group: process group of ``torch.distributed`` that tensors go through; None is the default one, if there is one.
        words: the group that all else goes through, and tensors of the CPU; by default the same.
    """

    def __init__(self, group: Any = None, words: Any = None) -> None:
        self.group, self.words = group, group if words is None else words

    @classmethod
    def of(cls, model: nn.Module, group: Any = None) -> Ranks:
        """Those of ``group``, or of the ``DistributedDataParallel`` that ``model`` is, or all there are."""
        if group is None and isinstance(model, nn.parallel.DistributedDataParallel):
            group = model.process_group
        return cls(group)

    @property
    def size(self) -> int:
        """How many there are now; 1 without ``torch.distributed``."""
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            return 1
        return max(1, distributed.get_world_size(self.group))

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        return 0 if self.size == 1 else torch.distributed.get_rank(self.group)

    @property
    def members(self) -> list[int]:
        """What they are called among all processes that were started, by rank."""
        if self.size == 1 and not torch.distributed.is_initialized():
            return [0]
        group = torch.distributed.group.WORLD if self.group is None else self.group
        return torch.distributed.get_process_group_ranks(group)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes, prints and measures."""
        return self.rank == 0

    # ---- words

    def gather(self, mine: Found) -> list[Found]:
        """What each has, by rank."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        with _reached():
            torch.distributed.all_gather_object(found, mine, self.words)
        return found

    def share(self, mine: Found) -> Found:
        """What the first has."""
        if self.size == 1:
            return mine
        told: list[Any] = [mine]
        with _reached():
            torch.distributed.broadcast_object_list(told, group=self.words, group_src=0)
        return told[0]  # type: ignore[no-any-return]

    def first(self, work: Callable[[], Found]) -> Found:
        """What ``work`` gives in the first process, alone; the others wait for it. Its error is raised in all."""
        if self.size == 1:
            return work()
        found: Any = None
        error: Exception | None = None
        if self.is_first:
            try:
                with working(ALONE):
                    found = work()
            except Exception as raised:
                error = raised
        found, told = self.share((found, None if error is None else _as_told(error)))
        if told is not None:
            raise (told if error is None else error)
        return found  # type: ignore[no-any-return]

    def agree(self, mine: Mapping[str, Any], alike: Sequence[str], message: str = DIFFER) -> dict[str, Any]:
        """What the first process has.

        Args:
            alike: entries that have to be the same everywhere.
            message: of the error; ``{name}`` is the entry, ``{other}`` the process that differs from the first,
                ``{first}`` and ``{second}`` what they have.

        Raises:
            UsageError: they are not; on every process.
        """
        found = self.gather(dict(mine))
        for name in alike:
            other = next((rank for rank, each in enumerate(found) if each.get(name) != found[0].get(name)), None)
            if other is not None:
                shown = [_short(found[rank].get(name)) for rank in (0, other)]
                raise UsageError(message.format(name=name, other=other, first=shown[0], second=shown[1]))
        return found[0]

    def require_same(self, what: str, mine: Any) -> None:
        """Raise ``CompressorError`` if what has been equal all along no longer is: a mistake, or unlike machines."""
        found = self.gather(mine)
        if any(each != found[0] for each in found):
            other = next(rank for rank, each in enumerate(found) if each != found[0])
            raise CompressorError(
                f"Processes 0 and {other} have come apart: {what} differ. All must run on equal machines, and what the "
                "model, its loss and its data draw must come from PyTorch's, NumPy's or Python's own generators."
            )

    # ---- tensors

    def any_of(self, mine: Sequence[bool]) -> list[bool]:
        """For each entry, whether it holds in any process."""
        if self.size == 1:
            return list(mine)
        flags = torch.tensor(mine, dtype=torch.uint8)
        with _reached():
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self.words)
        return [bool(flag) for flag in flags.tolist()]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its sum over all processes, where it lies."""
        self._each_kind(tensors, lambda flat, group: torch.distributed.all_reduce(flat, group=group))

    def copy_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by what the first process has."""

        def exchange(flat: Tensor, group: Any) -> None:  # as bytes: gloo knows neither truth values nor complex numbers
            torch.distributed.broadcast(flat.view(torch.uint8), group=group, group_src=0)

        self._each_kind(tensors, exchange)

    def all_of(self, mine: Tensor) -> Tensor:
        """The tensors of all processes, which have one shape, along a new first axis."""
        if self.size == 1:
            return mine.unsqueeze(0)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with _reached():
            torch.distributed.all_gather(found, mine.contiguous(), group=self._group_of(mine.device))
        return torch.stack(found)

    def mean(self, gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        """The mean of each over all processes; None where no process has one."""
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]
        given = filled[0].new_tensor([0.0 if g is None else 1.0 for g in gradients], dtype=torch.float64)
        flat = torch.cat([given, *(g.reshape(-1).double() for g in filled)])
        with _reached():
            torch.distributed.all_reduce(flat, group=self.group)
        counts, rest = flat[: len(filled)].tolist(), flat[len(filled) :] / self.size
        means = torch.split(rest, [g.numel() for g in filled])
        return [
            mean.reshape(g.shape).to(g.dtype) if count else None
            for mean, g, count in zip(means, filled, counts, strict=True)
        ]

    def _group_of(self, device: torch.device) -> Any:
        """What carries tensors of a device: NCCL takes none of the CPU's."""
        return self.words if device.type == "cpu" else self.group

    def _each_kind(self, tensors: Sequence[Tensor], exchange: Callable[[Tensor, Any], Any]) -> None:
        """All tensors of a type and device at once: a call takes as long as many numbers do."""
        if self.size == 1:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for (_, device), alike in kinds.items():
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in alike])
            with _reached():
                exchange(flat, self._group_of(device))
            for tensor, found in zip(alike, torch.split(flat, [t.numel() for t in alike]), strict=True):
                tensor.detach().copy_(found.view(tensor.shape))


class _Alone(Ranks):
    """One process, whatever groups there are."""

    @property
    def size(self) -> int:
        return 1


ALONE: Ranks = _Alone()
_CURRENT: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def current() -> Ranks:
    """The processes that this thread works together with; ``ALONE`` unless it said otherwise."""
    return _CURRENT.get()


@contextmanager
def working(ranks: Ranks) -> Iterator[Ranks]:
    """Inside, this thread works together with ``ranks``."""
    token = _CURRENT.set(ranks)
    try:
        yield ranks
    finally:
        _CURRENT.reset(token)


@contextmanager
def _reached() -> Iterator[None]:
    """Say what it means that others cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            "Another process that trains together with this one has ended or cannot be reached "
            f"({_reason(error)}); see what it said. Start all of them again: what was stored is gone on with."
        ) from error


def _reason(error: RuntimeError) -> str:
    """The first sentence of what the transport says, without where it stands in its source."""
    said = str(error).strip().splitlines()
    return re.sub(r"^(\[[^]]*\.\w+:\d+\] )+", "", said[-1]).partition(". ")[0] if said else type(error).__name__


def _as_told(error: Exception) -> Exception:
    """An error as other processes get it."""
    if isinstance(error, CompressorError):
        return error
    return CompressorError(f"Process 0 failed with {type(error).__name__}: {error}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
