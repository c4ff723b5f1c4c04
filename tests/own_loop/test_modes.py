"""Sessions in whatever modes a loop has switched on around them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch.nn import functional as F

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
