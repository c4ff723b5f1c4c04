"""Where the tensors of a masked pass go: into modules, and into the calls that a program makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.errors import UnsupportedModelError
from compressor.graph.graph import Site
from compressor.graph.recording.module_stack import ModuleStack, function_name
from compressor.masks.sites import HANDLERS
from compressor.nn.modules import as_written
from compressor.nn.multihead import narrowed
from compressor.nn.swap import flat_weights

if TYPE_CHECKING:
    from compressor.masks.masking import Masking

Place = tuple[dict[str, Any], str]
"""The name space of a module, and what it calls a tensor."""


class Layout:
    """Where the tensors of a pass go: first those that modules see, then masks of axes and gates, for calls."""

    def __init__(self, masking: Masking, places: list[Place]) -> None:
        self.masking, self.places = masking, places

    @contextmanager
    def placed(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        masking = self.masking
        before = [space.get(attribute) for space, attribute in self.places]
        with ExitStack() as stack:
            stack.callback(_put_back, self.places, before)
            for (space, attribute), tensor in zip(self.places, tensors, strict=False):
                space[attribute] = tensor
            stack.enter_context(as_written())
            if masking.graph.resolutions:
                stack.enter_context(masking.resampled())
            if masking.recurrent:
                stack.enter_context(flat_weights(masking.recurrent))
            if masking.attends:
                stack.enter_context(narrowed(masking.model))
            if masking.stack is not None:
                stack.enter_context(masking.stack.watched(lambda: self.calls(tensors, None)))
            yield

    @contextmanager
    def calls(self, tensors: Sequence[Tensor], position: Any) -> Iterator[None]:
        masking, first = self.masking, len(self.places)
        if masking.stack is None:
            yield
            return
        masks = list(tensors[first : first + masking.n_axes])
        with masking.stack.at(position), _Sites(masking, masks, list(tensors[first + masking.n_axes :])):
            yield

    def position(self) -> Any:
        stack = self.masking.stack
        return None if stack is None else stack.position()


class PartStack(ModuleStack):
    """Knows which module is running, also in a part of the model that runs by itself, or whose forward is called past
    the module.

    Args:
        places: the modules it is asked about.
    """

    def __init__(self, model: nn.Module, places: set[str]) -> None:
        super().__init__(model)
        self._asked = {name: self.by_name[name] for name in places if name in self.by_name and name}
        self._inside = False
        self._alone: Callable[[], AbstractContextManager[None]] = nullcontext

    def position(self) -> tuple[list[str], dict[tuple[str, str], int]]:
        return list(self.stack), dict(self.counts)

    @contextmanager
    def at(self, position: tuple[list[str], dict[tuple[str, str], int]] | None) -> Iterator[None]:
        """Inside, the program is at ``position``; None: at the beginning of the model, or of a module by itself."""
        before, inside = (self.stack, self.counts), self._inside
        stack, counts = position or ([""], {})
        self.stack, self.counts, self._inside = list(stack), dict(counts), True
        try:
            yield
        finally:
            (self.stack, self.counts), self._inside = before, inside

    @contextmanager
    def watched(self, alone: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """``watch``; a module that is run by itself runs inside what ``alone`` gives."""
        before, self._alone = self._alone, alone
        spaces = [vars(module) for module in self._asked.values()]
        forwards = [space.get("forward") for space in spaces]
        try:
            for name, module in self._asked.items():
                vars(module)["forward"] = self._forward(name, module.forward)
            with self.watch():
                yield
        finally:
            self._alone = before
            _put_back([(space, "forward") for space in spaces], forwards)

    def _watched(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        watched = super()._watched(name, run)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return watched(*args, **kwargs)
            with self._alone():
                return watched(*args, **kwargs)

        return call

    def _forward(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        past = self._watched(name, run)

        def forward(*args: Any, **kwargs: Any) -> Any:
            return run(*args, **kwargs) if self._inside and self.place == name else past(*args, **kwargs)

        return forward


class _Sites(TorchFunctionMode):
    def __init__(self, masking: Masking, masks: list[Tensor], gates: list[Tensor]) -> None:
        super().__init__()
        self.masking, self.masks, self.gates, self.names = masking, masks, gates, masking.functions

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name not in self.names:
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
                return HANDLERS[site.kind](func, args, kwargs, mask, site.options)
            except (RuntimeError, IndexError, KeyError) as error:
                raise UnsupportedModelError(
                    f"The masked model calls {site.function} in {site.place or 'the model'} otherwise than when it was "
                    f"traced ({str(error).splitlines()[0]}); exclude that module or keep its control flow constant."
                ) from error

        return handled


def _put_back(places: list[Place], before: list[Any]) -> None:
    for (space, attribute), value in zip(reversed(places), reversed(before), strict=True):
        if value is None:
            space.pop(attribute, None)
        else:
            space[attribute] = value
