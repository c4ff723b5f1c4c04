"""Masks for what a backward pass computes again.

Activation checkpointing runs parts of a forward a second time, in the backward, when the forward's masks are no longer
in the model. So a forward under masks is a ``Pass`` that can bring them back. It does so in two ways: functions that
are given to ``torch.utils.checkpoint`` run anew exactly as they ran before, whatever module they begin in; and from the
first gradient of an output to the end of that backward, modules see the masks whoever runs them.

What is seen the second time are leaves with the same values. A backward inside the backward, as reentrant checkpointing
makes one, ends there, and goes on into the weights and masks through products made anew: those of the forward are gone
as soon as the outer backward has passed them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
import torch.utils.checkpoint
from torch import Tensor

from compressor.nn.modules import apart

_here = threading.local()


class Stage(Protocol):
    """Where a pass puts its tensors."""

    def placed(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Inside, modules see the tensors, on any thread."""
        ...

    def calls(self, tensors: Sequence[Tensor], position: Any) -> AbstractContextManager[None]:
        """Inside, function calls of this thread see them, from ``position`` in the program on (None: its start)."""
        ...

    def position(self) -> Any:
        """Where in the program the forward is now."""
        ...

    def start(self) -> AbstractContextManager[None]:
        """Inside ``calls``: the program is at its start again."""
        ...


class Passes:
    """The passes of one model: which of them a backward has brought back."""

    def __init__(self) -> None:
        self.back: Pass | None = None
        self._open = ExitStack()

    def bring(self, made: Pass) -> None:
        self._open.enter_context(made.stage.placed(made.leaves()))
        self.back = made

    def clear(self) -> None:
        """Take out what is there, also what a backward that failed left behind."""
        back, self.back = self.back, None
        self._open.close()
        if back is not None:
            back.let_go()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside nothing is brought back; after it, what the backward that is running had."""
        back = self.back if torch._C._current_graph_task_id() != -1 else None
        self.clear()
        try:
            yield
        finally:
            if back is not None:
                self.bring(back)


class Watcher(Protocol):
    """Is told of every backward through a pass."""

    def backward_begins(self) -> None: ...
    def backward_ends(self) -> None: ...


class Pass:
    """One forward in which a stage has these tensors.

    Args:
        anew: gives tensors of the same values, in the same order, with a history of their own.
    """

    def __init__(
        self, passes: Passes, stage: Stage, tensors: Sequence[Tensor], anew: Callable[[], Sequence[Tensor]]
    ) -> None:
        _install()
        self.passes, self.stage, self._anew = passes, stage, anew
        self._tensors: Sequence[Tensor] | None = tensors
        self._leaves: list[Tensor] | None = None
        self._history: Sequence[Tensor] | None = None
        self._watcher: Watcher | None = None
        self._standing = ExitStack()

    @contextmanager
    def forward(self) -> Iterator[Pass]:
        """The forward runs inside."""
        with self.passes.aside(), self._standing, _running(self):
            self._stand(self._tensors or ())
            yield self

    def another(self) -> AbstractContextManager[None]:
        """Inside, within ``forward``, the model runs from its start: every one of several forwards with these masks."""
        return self.stage.start()

    def _stand(self, tensors: Sequence[Tensor]) -> None:
        self._standing.enter_context(self.stage.placed(tensors))
        self._standing.enter_context(self.stage.calls(tensors, None))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, within ``forward``, modules and calls have nothing of it."""
        self._standing.close()
        try:
            yield
        finally:
            self._stand(self._tensors if self._tensors is not None else self._anew())

    def over(self, outputs: Any, watcher: Watcher | None = None) -> Any:
        """``outputs`` of the forward as they are; their backward begins with the masks back in place."""
        if torch.is_grad_enabled():
            self._watcher = watcher
            nodes = {id(t.grad_fn): t.grad_fn for t in _tensors_in(outputs) if t.grad_fn is not None}
            for node in nodes.values():
                node.register_prehook(self._begins)
        return outputs

    def _begins(self, gradients: Any) -> None:
        apart(self._bring_back)  # a backward may be compiled, too

    def _bring_back(self) -> None:
        if self.passes.back is not None:  # passes of one step are alike
            return
        if self._watcher is not None:
            self._watcher.backward_begins()
        self.passes.bring(self)
        torch.autograd.Variable._execution_engine.queue_callback(self._ends)

    def _ends(self) -> None:
        apart(self.passes.clear)
        if self._watcher is not None:
            self._watcher.backward_ends()

    @contextmanager
    def again(self, position: Any) -> Iterator[None]:
        """Inside, the program runs once more from ``position`` on."""
        back = self.passes.back
        with ExitStack() as stack:
            if back is None:
                stack.callback(self.let_go)
                stack.enter_context(self.stage.placed(self.leaves()))
            made = back or self
            stack.enter_context(made.stage.calls(made.leaves(), position))
            stack.enter_context(_running(self))
            yield

    def leaves(self) -> list[Tensor]:
        """The tensors, cut off from what they were made of."""
        if self._leaves is None:
            with torch.enable_grad(), _kept():
                if self._tensors is None:
                    self._tensors = self._anew()
                learning = [t for t in self._tensors if t.requires_grad]
                stands: Sequence[Tensor] = ()
                if learning:
                    start = torch.zeros((), requires_grad=True)
                    stands = _Leaves.apply(start, self._arrive, *(t.detach() for t in learning))
            cut = iter(stands)
            self._leaves = [next(cut) if t.requires_grad else t for t in self._tensors]
        return self._leaves

    def let_go(self) -> None:
        """Forget what can be made anew."""
        self._tensors = self._leaves = self._history = None

    def _arrive(self, gradients: Sequence[Tensor | None]) -> None:
        """Gradients of the leaves that learn, in a backward inside the backward, go where they would have gone."""
        history = self._history
        if history is None:
            with torch.enable_grad(), _kept():
                history = [t for t in self._anew() if t.requires_grad]
            if self.passes.back is self:
                self._history = history
        pairs = [(t, g.to(t.dtype)) for t, g in zip(history, gradients, strict=True) if g is not None]
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs], retain_graph=True)


class _Leaves(torch.autograd.Function):
    """Copies of tensors whose gradients are handed to a function."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, arrive: Callable[..., None], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.arrive = arrive
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        apart(ctx.arrive, gradients)
        return None, None, *([None] * len(gradients))


def _kept() -> AbstractContextManager[None]:
    """Inside, tensors that a backward needs are kept as they are: a checkpoint around would count them as its own."""
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Tensors in whatever a forward may return."""
    if isinstance(value, Tensor):
        yield value
    elif depth < 8:
        items: Any = ()
        if isinstance(value, dict):
            items = value.values()
        elif isinstance(value, list | tuple | set):
            items = value
        elif hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module):
            items = vars(value).values()
        for item in items:
            yield from _tensors_in(item, depth + 1)


@contextmanager
def _running(made: Pass) -> Iterator[None]:
    """Inside, what is given to a checkpoint belongs to this pass."""
    before = getattr(_here, "running", None)
    _here.running = made
    try:
        yield
    finally:
        _here.running = before


def in_checkpoint() -> bool:
    """Whether this is the first run of a reentrant checkpoint that learns: gradients are off, and yet there will be
    some."""
    return getattr(_here, "checkpoints", 0) > 0


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` that runs anew as it runs now."""
    made: Pass | None = getattr(_here, "running", None)
    if made is None:
        return function
    position = made.stage.position()

    def again(*args: Any, **kwargs: Any) -> Any:
        with made.again(position):
            return function(*args, **kwargs)

    def run(*args: Any, **kwargs: Any) -> Any:
        first = getattr(_here, "running", None) is made
        return function(*args, **kwargs) if first else apart(again, *args, **kwargs)

    return run


_lock, _installed = threading.Lock(), False


def _install() -> None:
    """Let ``torch.utils.checkpoint`` tell what it will run anew; for all that runs without masks nothing changes.

    There is no other place to learn it from: the function is known to the checkpoint alone.
    """
    global _installed
    with _lock:
        if _installed:
            return
        _installed = True
    checkpoint: Any = torch.utils.checkpoint
    name = "_checkpoint_without_reentrant_generator"
    name = f"{name}_impl" if hasattr(checkpoint, f"{name}_impl") else name
    generator, forward = getattr(checkpoint, name), checkpoint.CheckpointFunction.forward

    def remembered(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return generator(_remembering(fn), *args, **kwargs)

    def reentrant(ctx: Any, run_function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        learns = any(ctx.needs_input_grad)
        _here.checkpoints = getattr(_here, "checkpoints", 0) + learns
        try:
            return forward(ctx, _remembering(run_function), preserve_rng_state, *args)
        finally:
            _here.checkpoints -= learns

    setattr(checkpoint, name, remembered)
    checkpoint.CheckpointFunction.forward = staticmethod(reentrant)
