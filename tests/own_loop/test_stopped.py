"""Loops that stop and go on, from a checkpoint in memory or in a file."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from compressor.errors import UsageError
from compressor.pipeline.session import Session
from tests.own_loop.loops import Convolutions, Net, batch, loop, made, opened

STEPS = 6


def stored(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("weights_first", [True, False])
@pytest.mark.parametrize("kind", [Net, Convolutions])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_loop_that_stops_after_every_step(search: str, kind: Any, weights_first: bool) -> None:
    """Weights are others at each ``prepare`` than at the first, and so is what they say about channels."""
    expected = loop(made(kind), search, STEPS)
    model = made(kind).train()
    session = opened(model, search, STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + session.cost_loss()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        session.step()
        state = stored([model.state_dict(), optimizer.state_dict(), session.state_dict()])
        model = made(kind, seed=step + 1).train()
        if weights_first:
            model.load_state_dict(state[0])
        session = opened(model, search, STEPS)
        model.load_state_dict(state[0])
        session.load_state_dict(state[2])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        optimizer.load_state_dict(state[1])
    small = session.finish()
    assert session.architecture.to_json() == expected.kept
    for name, tensor in expected.small.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def values(session: Session) -> list[Any]:
    flat: list[Any] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                walk(value[key])
        elif isinstance(value, list | tuple):
            for each in value:
                walk(each)
        else:
            flat.append(value.tolist() if isinstance(value, torch.Tensor) else value)

    walk(copy.deepcopy(session.state_dict()))
    return flat


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_what_is_no_state_is_refused_and_changes_nothing(search: str) -> None:
    donor = made(Net, seed=5)
    model = made(Net).train()
    session, other = opened(model, search), opened(donor.train(), search)
    for each, network in ((session, model), (other, donor)):
        F.cross_entropy(network(batch(0)[0]), batch(0)[1]).backward()
        each.step()
    sound, before = other.state_dict(), values(session)
    damaged: list[Any] = [
        None,
        5,
        [],
        {},
        {**sound, "masks": 3},
        {**sound, "masks": [mask.to("meta") for mask in sound["masks"]]},
        {**sound, "masks": [mask[..., :-1] for mask in sound["masks"]]},
        {**sound, "optimizers": {}},
        {**sound, "method": {}},
        {**sound, "method": {name: {} for name in sound["method"] if name != "live"} | {"multipliers": {}}},
        {**sound, "steps": "x"},
        {**sound, "steps": -1},
        {**sound, "seed": "x"},
        {**sound, "order": sound["order"][:-1] if len(sound["order"]) else torch.arange(3)},
        {**sound, "order": sound["order"].clone().fill_(2) if len(sound["order"]) else torch.arange(3)},
        {name: value for name, value in sound.items() if name != "steps"},
    ]
    for state in damaged:
        with pytest.raises(UsageError, match="state"):
            session.load_state_dict(state)
        assert values(session) == before
    session.load_state_dict(sound)
    assert values(session) == values(other)
