"""What is wrapped around a model, compiled in it or built by its first forward."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils import _pytree as pytree

from compressor.errors import UsageError
from compressor.nn.inference import Inference
from compressor.nn.walk import every_module
from compressor.process.generators import isolated_rng


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif _is_compiled_wrapper(model):
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        else:
            return model


def require_whole_tensors(model: nn.Module) -> None:
    """Raise ``UsageError`` if parameters are spread over processes: of a part, nothing can be decided or removed."""
    cure = (
        "what is removed is decided on whole weights. Call compressor.prepare first and fully_shard on the prepared "
        "model, or compress first and shard the result."
    )
    for module in every_module(model):
        if type(module).__name__ == "FullyShardedDataParallel":
            raise UsageError(
                f"The model is sharded by FullyShardedDataParallel (FSDP1), which is not supported, as {cure}"
            )
    for name, parameter in model.named_parameters():
        if type(parameter).__name__ in ("DTensor", "FlatParameter") or hasattr(parameter, "_local_tensor"):
            raise UsageError(f"{name} is sharded ({type(parameter).__name__}: FSDP or tensor parallelism), and {cure}")


def _is_compiled_wrapper(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules  # without importing dynamo


@contextmanager
def uncompiled(*models: nn.Module) -> Iterator[None]:
    """Inside, modules that are compiled run as they are written, so that they can be watched and masked."""
    placed: list[tuple[dict[str, Any], str, Any]] = []
    try:
        # On each module, as a stance of the compiler would hold for all threads.
        for module in every_module(*models):
            if _is_compiled_wrapper(module):
                placed.append((vars(module), "forward", vars(module).get("forward")))
                vars(module)["forward"] = module._modules["_orig_mod"]
            if module._compiled_call_impl is not None:
                placed.append((vars(module), "_compiled_call_impl", module._compiled_call_impl))
                vars(module)["_compiled_call_impl"] = None
        yield
    finally:
        for space, name, before in placed:
            space[name] = before


_written = threading.Lock()
_depth, _stance = 0, ExitStack()
_apart: Callable[..., Any] | None = None


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, nothing is compiled: a compiled function does not look again at what its modules have.

    PyTorch keeps one stance for all threads, so it goes back with the last one that wanted another.
    """
    global _depth
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled
        yield
        return
    with _written:
        if not _depth:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
        _depth += 1
    try:
        yield
    finally:
        with _written:
            _depth -= 1
            if not _depth:
                _stance.close()


def apart(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` apart from whatever is being compiled around it, so that ``as_written`` may be used inside."""
    global _apart
    if _apart is None:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        _apart = torch.compiler.disable(lambda call, args, kwargs: call(*args, **kwargs))  # type: ignore[no-untyped-call]
    return _apart(function, args, kwargs)


def build_lazy(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run a forward if parameters wait for their shapes (``nn.LazyLinear``), as the user's own first one would."""
    tensors = (t for m in every_module(model) for t in (*m._parameters.values(), *m._buffers.values()))
    if any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in tensors):
        run_once(model, args, kwargs)


def run_once(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward in evaluation mode, for what it builds. The caller's random generators are read, not moved."""

    def forward() -> None:
        own = pytree.tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, (args, kwargs))
        model(*own[0], **own[1])

    with isolated_rng(), evaluating(model):
        Inference(model)(forward)


def gradients(on: bool) -> AbstractContextManager[None]:
    """Inside, gradients are switched on, for a forward that takes some itself, or off."""
    return torch.enable_grad() if on else torch.no_grad()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode restored after."""
    modes = [(module, module.training) for module in every_module(model)]
    if not any(mode for _, mode in modes):  # setting an attribute of a module is slow
        yield
        return
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            vars(module)["training"] = mode  # ten times quicker than the module's own way of setting attributes
