"""Compressions side by side in the threads of one process: each as if it were alone, and the process as it was."""

from __future__ import annotations

import gc
import math
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.data import Data, from_loaders
from compressor.process.generators import isolated_rng, rng_state
from compressor.process.sharing import Switch, Turn


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x, need_weights=False)[0] * x.shape[-1] ** -0.5
        y = torch.nn.functional.gelu(self.up(x))
        x = x + self.down(y / math.sqrt(y.shape[-1]))
        out: Tensor = self.head(x.mean(1))
        return out


def made(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with isolated_rng(seed=seed):
        return build()


def data(seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(32, 3, 8, 8, generator=generator)
    y = torch.randint(4, (32,), generator=generator)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 32, 8)]
    return from_loaders(batches, batches)


X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def one_shot(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    return weights(compressor.compress(made(build, seed), X, {"flops": "50%"}, round_to=1))


def trained(build: Callable[[], nn.Module], seed: int, search: str) -> dict[str, Tensor]:
    result = compressor.compress(
        made(build, seed), X, {"flops": "60%"}, search=search, data=data(seed), search_epochs=1, finetune_epochs=1,
        options={"least_steps": 0} if search in ("figs", "dnarch") else None,
        batch_size=8, seed=seed,
    )  # fmt: skip
    return weights(result)


def weights(result: Any) -> dict[str, Tensor]:
    assert result.report.verification.passed
    return dict(result.model.state_dict())


WORK: list[Callable[[], dict[str, Tensor]]] = [
    lambda: trained(conv, 1, "figs"),
    lambda: trained(Attention, 2, "dnarch"),
    lambda: one_shot(Attention, 3),
    lambda: one_shot(conv, 4),
    lambda: trained(conv, 5, "dnarch"),
]


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    found: list[Any] = [None] * len(work)

    def run(i: int) -> None:
        try:
            found[i] = work[i]()
        except BaseException as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(work))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return found


def globals_now() -> dict[str, Any]:
    state = rng_state()
    return {
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
        "grad": torch.is_grad_enabled(),
        "gc": gc.isenabled(),
        "sqrt": math.sqrt,
        "filters": list(warnings.filters),
        "streams": (sys.stdout, sys.stderr),
        "threads": torch.get_num_threads(),
        "python": state["python"],
        "numpy": state["numpy"][1].tolist(),
        "torch": state["torch"].tolist(),
    }


@contextmanager
def unchanged_process() -> Iterator[None]:
    before = globals_now()
    yield
    after = globals_now()
    assert {name for name in before if before[name] != after[name]} == set()


def test_side_by_side_as_one_after_the_other() -> None:
    alone = [work() for work in WORK]
    with unchanged_process():
        together = in_threads(WORK)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, dict), other
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_one_model_in_several_threads_while_it_serves() -> None:
    model = made(Attention, 7).eval()
    budgets = ["70%", "50%", "40%"]
    with torch.no_grad():
        expected = model(X)
    stop = threading.Event()

    def serve() -> int:
        wrong = 0
        while not stop.is_set():
            with torch.no_grad():
                wrong += not torch.equal(model(X), expected)
        return wrong

    def compressing() -> list[Any]:
        try:
            return in_threads(
                [lambda b=b: weights(compressor.compress(model, X, {"flops": b}, round_to=1)) for b in budgets]
            )
        finally:
            stop.set()

    wrong, together = in_threads([serve, compressing])
    assert wrong == 0
    for budget, other in zip(budgets, together, strict=True):
        assert isinstance(other, dict), other
        one = weights(compressor.compress(model, X, {"flops": budget}, round_to=1))
        assert all(torch.equal(one[key], other[key]) for key in one)


class Raises(nn.Module):
    """Raises in the n-th forward: while it is traced, verified or trained."""

    def __init__(self, error: BaseException, after: int) -> None:
        super().__init__()
        self.net, self.error = conv(), error
        self.after = np.array([after])  # a list would be put back after every trace

    def forward(self, x: Tensor) -> Tensor:
        self.after[0] -= 1
        torch.rand(1), random.random(), np.random.rand()
        if self.after[0] < 0:
            raise self.error
        out: Tensor = self.net(x)
        return out


@pytest.mark.parametrize("after", [0, 1, 3, 6, 12])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_all_is_put_back_after_an_error(error: BaseException, after: int) -> None:
    model = Raises(error, after)

    def failing() -> Any:
        return trained(lambda: model, 0, "figs")

    with unchanged_process():
        with pytest.raises((type(error), compressor.CompressorError)):
            failing()
        model.after[0] = after
        found = in_threads([failing, WORK[3]])
        assert isinstance(found[0], BaseException)
        assert isinstance(found[1], dict), found[1]


def test_a_switch_is_on_while_anybody_needs_it() -> None:
    log: list[str] = []

    def turn_on() -> Callable[[], None]:
        log.append("on")
        return lambda: log.append("off")

    switch = Switch(turn_on)
    first, second = switch.on(), switch.on()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert log == ["on"]
    second.__exit__(None, None, None)
    assert log == ["on", "off"]
    with pytest.raises(KeyError), switch.on():
        raise KeyError
    assert log == ["on", "off"] * 2


def test_turns_go_round() -> None:
    turn, order = Turn(), []

    def work(name: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(50):
                turn.take()
                turn.take()
                order.append(name)
                order.append(name)
                turn.leave()
                turn.leave()

        return run

    in_threads([work(n) for n in range(4)])
    assert len(order) == 400
    assert all(a == b for a, b in zip(order[::2], order[1::2], strict=True)), "one at a time"


def test_draws_are_the_same_whoever_draws_between() -> None:
    def draws(seed: int) -> Callable[[], list[float]]:
        def run() -> list[float]:
            with isolated_rng(seed=seed) as give_way:
                found = []
                for _ in range(30):
                    found += [float(torch.rand(())), random.random(), float(np.random.rand())]
                    give_way()
                return found

        return run

    work = [draws(seed) for seed in range(4)]
    alone = [each() for each in work]
    with unchanged_process():
        assert in_threads(work) == alone
