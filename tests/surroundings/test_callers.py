"""What is switched on around a call stays on after it, and changes nothing in what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compressor


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CALLERS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "deterministic": _deterministic,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "a device": lambda: torch.device("cpu"),
    "a counter": lambda: FlopCounterMode(display=False),
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 4, (8,), generator=generator)) for _ in range(3)
    ]


def compressed(caller: Callable[[], AbstractContextManager[object]]) -> list[Tensor]:
    """Everything is made inside, the model and the data, too."""
    with caller():
        batches = data()
        result = compressor.compress(
            net(), batches[0][0][:1], {"flops": "50%"}, data=(batches, batches), search="figs", search_epochs=1,
            finetune_epochs=1,
        )  # fmt: skip
    assert all(parameter.requires_grad for parameter in result.model.parameters())
    result.model.train()(data()[0][0]).sum().backward()  # it can be trained on
    return [parameter.detach() for parameter in result.model.parameters()]


@pytest.mark.parametrize("caller", CALLERS)
def test_the_result_is_the_same_whatever_the_caller_has_switched_on(caller: str) -> None:
    before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()
    expected, found = compressed(nullcontext), compressed(CALLERS[caller])
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    after = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()
    assert before == after
