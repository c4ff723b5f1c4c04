"""Settings of modules and of PyTorch that training changes for a while and then puts back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn


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
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask for algorithms that give the same bits every time, where there are any; settings are put back."""
    backend = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        memory.fill_uninitialized_memory,
        backend.deterministic,
        backend.benchmark,
    )
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=not before[0] or before[1])
    memory.fill_uninitialized_memory = False  # no memory is read before it is written
    backend.deterministic, backend.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = before[2]
        backend.deterministic, backend.benchmark = before[3], before[4]


def model_device(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model that has neither."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
