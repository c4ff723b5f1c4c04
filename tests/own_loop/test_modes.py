"""Sessions in whatever modes a loop has switched on around them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import compressor
from compressor.errors import UsageError
from tests.own_loop.loops import Convolutions, Net, Run, batch, flat, loop, made, opened

Mode = Callable[[], AbstractContextManager[Any]]
MODES: dict[str, Mode] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly": torch.autograd.detect_anomaly,
}


def around(kind: Any, search: str, mode: Mode, where: str, steps: int = 6) -> Run:
    """A loop with a mode around one of its parts."""

    def within(part: str) -> AbstractContextManager[Any]:
        return mode() if part == where else nullcontext()

    model, found = made(kind).train(), Run()
    with within("prepare"):
        session = opened(model, search, steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        found.losses.append(loss.item())
        found.masks.append(flat(session.parameters()))
        cost = session.cost_loss()
        if cost.requires_grad:
            cost.backward()  # type: ignore[no-untyped-call]
        found.weights.append(flat(model.parameters()))
        with within("step"):
            optimizer.step()
            session.step()
            session.load_state_dict(session.state_dict())
    with within("finish"):
        found.small = session.finish()
        session.carry_optimizer(optimizer)
    found.kept = session.architecture.to_json()
    optimizer.zero_grad()
    F.cross_entropy(found.small(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return found


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("where", ["prepare", "step", "finish"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("kind", [Net, Convolutions])
def test_modes_around_a_session_change_nothing(kind: Any, search: str, mode: str, where: str) -> None:
    around(kind, search, MODES[mode], where).like(loop(made(kind), search))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("kind", [Net, Convolutions])
def test_targets_that_a_loop_computes_without_gradients_are_those_of_the_masked_model(
    kind: Any, search: str, mode: Mode
) -> None:
    """Virtual adversarial training, labels that are guessed, and statistics that are updated do so in training mode."""
    model = made(kind)
    session = opened(model, search)

    def call(x: torch.Tensor) -> Any:
        with mode():
            target = model(x)
        found = model(x)
        with mode():
            again = model(x)
        assert torch.equal(target, found)
        assert torch.equal(again, found)
        return found

    loop(model, search, call=call, session=session).like(loop(made(kind), search))
    session = opened(made(kind).train(), search)
    with torch.no_grad():
        session.model(batch(0)[0])
    with pytest.raises(UsageError, match="no forward"):
        session.step()


class Images(torch.nn.Module):
    """Whose resolution can be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = torch.nn.Conv2d(3, 8, 1), torch.nn.Linear(8, 3)
        self.branch = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        return self.head((x + self.branch(x)).mean((2, 3)))


def test_what_is_kept_of_forwards_in_inference_mode_serves_those_that_learn() -> None:
    images = torch.randn(2, 3, 18, 18, generator=torch.Generator().manual_seed(0))  # a length of their own
    model = made(Images).train()
    learned = {"learn": "width,depth,kernel,resolution"}
    session = compressor.prepare(model, images, {"flops": "50%"}, search="dnarch", total_steps=8, options=learned)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(8):
        with torch.inference_mode():
            model(images)
            with session.masked():
                model.eval()(images)
        (model.train()(images).square().mean() + session.cost_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
    assert session.finish()(images).shape == (2, 3)


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_step_before_its_backward_is_told(search: str) -> None:
    model = made(Net).train()
    session = opened(model, search)
    told = []
    for step in range(4):
        loss = F.cross_entropy(model(batch(step)[0]), batch(step)[1]) + session.cost_loss()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            session.step()
        told += [str(each.message) for each in caught]
        loss.backward()  # type: ignore[no-untyped-call]
    assert ["before any backward" in each for each in told] == [True]
