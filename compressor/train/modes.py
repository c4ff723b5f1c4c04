"""Settings of modules and of PyTorch that training changes for a while and then puts back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from compressor.process.sharing import Switch


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode for the whole model; afterwards every submodule is in the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


@contextmanager
def computing_losses(model: nn.Module) -> Iterator[None]:
    """Training mode, in which detectors compute losses, but for what draws or learns: dropout and normalisations."""
    with mode(model, training=True):
        for module in model.modules():
            if isinstance(module, (_NormBase, _DropoutNd)):
                module.training = False
        yield


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask for algorithms that give the same bits every time, where there are any; settings are put back when no thread
    asks for them any more."""
    with _DETERMINISTIC.on(), _WORKSPACE.on() if device.type == "cuda" else nullcontext():
        yield


def _make_deterministic() -> Callable[[], None]:
    backend = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    before = memory.fill_uninitialized_memory, backend.deterministic, backend.benchmark

    def put_back() -> None:
        torch.use_deterministic_algorithms(enabled, warn_only=only_warns)
        memory.fill_uninitialized_memory, backend.deterministic, backend.benchmark = before

    torch.use_deterministic_algorithms(True, warn_only=not enabled or only_warns)
    memory.fill_uninitialized_memory = False  # no memory is read before it is written
    backend.deterministic, backend.benchmark = True, False
    return put_back


def _fix_workspace() -> Callable[[], None]:
    """cuBLAS is deterministic with a fixed workspace."""
    if _CUBLAS in os.environ:
        return lambda: None
    os.environ[_CUBLAS] = ":4096:8"

    def put_back() -> None:
        os.environ.pop(_CUBLAS, None)

    return put_back


_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC, _WORKSPACE = Switch(_make_deterministic), Switch(_fix_workspace)


def model_device(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model that has neither."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
