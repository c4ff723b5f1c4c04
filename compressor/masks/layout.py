"""Where the tensors of a masked pass go: into modules, and into the calls that a program makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from compressor.errors import UnsupportedModelError
from compressor.graph.graph import Graph, Site
from compressor.graph.recording.module_stack import function_name
from compressor.masks.at_reading import Reading, filled_when_run, read_masked
from compressor.masks.part_stack import PartStack, Place, put_back
from compressor.masks.sites import HANDLERS, NARROW
from compressor.masks.written import Written, stepping_aside
from compressor.nn.modules import as_written
from compressor.nn.multihead import narrowed
from compressor.nn.sharded import is_exchanging, is_fsdp, told_apart
from compressor.nn.swap import flat_weights


class Masked(Protocol):
    """What a layout asks of the masks that it places."""

    model: nn.Module
    graph: Graph
    stack: PartStack | None
    recurrent: list[nn.RNNBase]
    attends: bool
    n_axes: int

    @property
    def functions(self) -> set[str]: ...

    def resampled(self) -> AbstractContextManager[None]: ...

    def site(self, name: str) -> list[Site]: ...

    def mask_of(self, site: Site, masks: list[Tensor], gates: list[Tensor]) -> Tensor | None: ...


class Layout:
    """Where the tensors of a pass go: first those that modules see, last masks of axes and gates, for calls.

    Args:
        readings: parameters that are multiplied when they are read.
        calls_at: where the masks for calls begin; default behind those that modules see.
        written: buffers that keep what a forward writes.
    """

    def __init__(
        self,
        masking: Masked,
        places: list[Place],
        readings: Sequence[Reading] = (),
        calls_at: int | None = None,
        written: Sequence[Written] = (),
    ) -> None:
        self.masking, self.places, self.readings, self.written = masking, places, readings, written
        self._calls_at = len(places) if calls_at is None else calls_at

    @contextmanager
    def placed(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        masking = self.masking
        before = [space.get(attribute) for space, attribute in self.places]
        with ExitStack() as stack:
            stack.callback(put_back, self.places, before)
            for (space, attribute), tensor in zip(self.places, tensors, strict=False):
                space[attribute] = tensor
            for each in self.written:
                stack.enter_context(each.carried())
            stack.enter_context(stepping_aside(self.places))
            stack.enter_context(as_written())
            if self.readings:
                stack.enter_context(read_masked(self.readings, tensors))
            if masking.graph.resolutions:
                stack.enter_context(masking.resampled())
            if masking.recurrent:
                fill = filled_when_run if self.readings else flat_weights
                stack.enter_context(fill(masking.recurrent))
            if masking.attends:
                stack.enter_context(narrowed(masking.model))
            if masking.stack is not None:
                stack.enter_context(masking.stack.watched(lambda: self.calls(tensors, None)))
                if self.readings:
                    stack.enter_context(told_apart([m for m in masking.model.modules() if is_fsdp(m)]))
            yield

    @contextmanager
    def calls(self, tensors: Sequence[Tensor], position: Any) -> Iterator[None]:
        masking, first = self.masking, self._calls_at
        if masking.stack is None:
            yield
            return
        masks = list(tensors[first : first + masking.n_axes])
        with masking.stack.at(position), _Sites(masking, masks, list(tensors[first + masking.n_axes :])):
            yield

    def position(self) -> Any:
        stack = self.masking.stack
        return None if stack is None else stack.position()

    def start(self) -> AbstractContextManager[None]:
        stack = self.masking.stack
        return nullcontext() if stack is None else stack.at(None)


class _Sites(TorchFunctionMode):
    def __init__(self, masking: Masked, masks: list[Tensor], gates: list[Tensor]) -> None:
        super().__init__()
        self.masking, self.masks, self.gates, self.names = masking, masks, gates, masking.functions

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name not in self.names or is_exchanging():
            return func(*args, **kwargs)
        call: Callable[..., Any] = func
        for site in self.masking.site(name):
            call = self._handled(call, site)
        return call(*args, **kwargs)

    def _handled(self, func: Callable[..., Any], site: Site) -> Callable[..., Any]:
        mask = self.masking.mask_of(site, self.masks, self.gates)
        if mask is None:
            return func

        def handled(*args: Any, **kwargs: Any) -> Any:
            try:
                return HANDLERS[site.kind](func, args, kwargs, _as_narrow(mask, args, kwargs), site.options)
            except (RuntimeError, IndexError, KeyError) as error:
                raise UnsupportedModelError(
                    f"The masked model calls {site.function} in {site.place or 'the model'} otherwise than when it was "
                    f"traced ({str(error).splitlines()[0]}); exclude that module or keep its control flow constant."
                ) from error

        return handled


def _as_narrow(mask: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The mask in half precision where the call is: layers that follow take no other type, but under ``autocast``."""
    given = pytree.tree_leaves((args, kwargs))
    like = next((t for t in given if isinstance(t, Tensor) and t.is_floating_point()), mask)
    if like.dtype not in NARROW or torch.is_autocast_enabled(like.device.type):
        return mask
    return mask.to(like.dtype)
