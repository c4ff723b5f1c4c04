"""An optimizer goes on with the small network, with what it remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import compressor
from compressor.errors import UsageError
from compressor.pipeline.session import Session
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, batch, made, opened


class Tied(nn.Module):
    """Tokens whose embedding is the head, too, and a frozen scale."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.middle, self.leave = nn.Linear(12, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.again = nn.Linear(24, 16)
        self.again.weight = self.leave.weight
        self.head = nn.Linear(16, 3)
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        y = self.middle(x).relu()
        out: Tensor = self.head(self.leave(y) + self.again(y))
        return out


def groups(model: nn.Module) -> list[dict[str, Any]]:
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [(n, p) for n, p in named if p.dim() > 1], "weight_decay": 0.01},
        {"params": [(n, p) for n, p in named if p.dim() <= 1], "lr": 0.02},
    ]


MAKE: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, amsgrad=True),
    "adamw foreach": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, foreach=True),
    "adamw fused": lambda m: torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=0.01, fused=True),
    "named groups": lambda m: torch.optim.AdamW(groups(m), lr=0.01),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.01),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters(), lr=0.01),
    "nadam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.01),
    "rprop": lambda m: torch.optim.Rprop(m.parameters(), lr=0.01),
}


def step(model: nn.Module, optimizer: Optimizer, at: int, session: Session | None = None) -> None:
    x, y = batch(at)
    loss = F.cross_entropy(model.train()(x), y)
    optimizer.zero_grad()
    (loss if session is None else loss + session.cost_loss()).backward()
    optimizer.step()
    if session is not None:
        session.step()


def finished(kind: Any, make: Callable[[nn.Module], Optimizer], search: str = "figs") -> tuple[Any, Any, Any, Any]:
    model = made(kind)
    session = opened(model, search, 6, budgets={"flops": "30%"})
    optimizer = make(model)
    for at in range(6):
        step(model, optimizer, at, session)
    return model, session, optimizer, session.finish()


@pytest.mark.parametrize("kind", [Net, Convolutions, Tied])
@pytest.mark.parametrize("name", MAKE)
def test_what_it_remembers_is_sliced_as_the_weights_are(name: str, kind: Any) -> None:
    model, session, optimizer, small = finished(kind, MAKE[name])
    before = {n: dict(optimizer.state.get(p, {})) for n, p in model.named_parameters()}
    settings = [{k: v for k, v in g.items() if k not in ("params", "param_names")} for g in optimizer.param_groups]
    session.carry_optimizer(optimizer)
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    wanted = {id(p): n for n, p in small.named_parameters() if p.requires_grad or name not in ("named groups",)}
    assert held <= {id(p) for p in small.parameters()}
    assert {id(p) for p in small.parameters() if p.requires_grad} <= held, wanted
    assert [
        {k: v for k, v in g.items() if k not in ("params", "param_names")} for g in optimizer.param_groups
    ] == settings
    for group in optimizer.param_groups:
        if "param_names" in group:
            assert [
                dict(small.named_parameters())[n] is p
                for n, p in zip(group["param_names"], group["params"], strict=True)
            ]
    for n, p in small.named_parameters():
        first = session.architecture.first_name(n)
        assert set(optimizer.state.get(p, {})) == set(before[first])
        for key, value in optimizer.state.get(p, {}).items():
            old = before[first][key]
            if isinstance(old, Tensor) and old.shape == model.get_parameter(first).shape:
                assert torch.equal(value, session.architecture.slice(first, old))
            elif isinstance(old, Tensor) and old.numel() == 1:
                assert torch.equal(value, old)
    weights = {n: p.detach().clone() for n, p in small.named_parameters()}
    for at in range(6, 8):
        step(small, optimizer, at)
    assert any(not torch.equal(p, weights[n]) for n, p in small.named_parameters())
    assert all(bool(torch.isfinite(p).all()) for p in small.parameters())


@pytest.mark.parametrize("name", ["momentum", "adam", "named groups"])
def test_the_next_step_is_the_one_that_the_slices_say(name: str) -> None:
    """Against an optimizer made anew, with its state put there by hand."""
    model, session, optimizer, small = finished(Convolutions, MAKE[name])
    other = session.architecture.apply_(made(Convolutions))
    other.load_state_dict(small.state_dict())
    fresh = MAKE[name](other)
    names = {id(p): n for n, p in other.named_parameters()}
    for p in [p for g in fresh.param_groups for p in g["params"]]:
        old = optimizer.state[model.get_parameter(names[id(p)])]
        fresh.state[p] = {
            k: session.architecture.slice(names[id(p)], v) if isinstance(v, Tensor) and v.numel() > 1 else v
            for k, v in old.items()
        }
    session.carry_optimizer(optimizer)
    for at in range(6, 9):
        step(small, optimizer, at)
        step(other, fresh, at)
    for a, b in zip(small.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_blocks_that_went_leave_their_groups() -> None:
    model = made(Net, None, 4)
    session = opened(model, "dnarch", 8, budgets={"flops": "30%"}, options={"learn": "depth"})
    optimizer = torch.optim.AdamW([{"params": [p]} for p in model.parameters()], lr=0.01)
    for at in range(8):
        step(model, optimizer, at, session)
    small = session.finish()
    assert session.architecture.blocks
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    session.carry_optimizer(optimizer)
    assert any(not g["params"] for g in optimizer.param_groups)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in small.parameters()}
    assert set(map(id, optimizer.state)) <= {id(p) for p in small.parameters()}
    step(small, optimizer, 8)
    scheduler.step()
    assert all(g["lr"] == pytest.approx(0.001) for g in optimizer.param_groups)


def test_what_is_not_the_models_stays() -> None:
    model, other = made(Net), nn.Linear(3, 3)
    session = opened(model, steps=1)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1, momentum=0.9)
    other(model.train()(EXAMPLE)).sum().backward()
    optimizer.step()
    session.step()
    small = session.finish()
    memory = optimizer.state[other.weight]["momentum_buffer"]
    session.carry_optimizer(optimizer)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in (*small.parameters(), *other.parameters())
    }
    assert optimizer.state[other.weight]["momentum_buffer"] is memory


def test_what_cannot_be_carried_is_refused_and_left_alone() -> None:
    model = made(Net)
    session = opened(model, steps=1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    with pytest.raises(UsageError, match="finish"):
        session.carry_optimizer(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model.train()(EXAMPLE).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    session.step()
    session.finish()
    held, state = optimizer.param_groups[0]["params"], dict(optimizer.state)
    with pytest.raises(UsageError, match=r"LBFGS remembers .* make a new optimizer"):
        session.carry_optimizer(optimizer)
    assert optimizer.param_groups[0]["params"] is held
    assert dict(optimizer.state) == state
    with pytest.raises(UsageError, match="no parameter of the model"):
        session.carry_optimizer(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    session.carry_optimizer(plain)
    with pytest.raises(UsageError, match="no parameter of the model"):
        session.carry_optimizer(plain)


def test_factored_moments_of_squares_are_told_apart_by_name() -> None:
    """As in optimizers that keep a row and a column in place of a matrix."""

    class Factored(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for p in self.param_groups[0]["params"]:
                if p.dim() == 2:
                    self.state[p] = {"step": 1, "exp_row": p.detach().mean(1), "exp_col": p.detach().mean(0)}

    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    session = compressor.prepare(model, EXAMPLE, {"flops": "40%"}, total_steps=1)
    optimizer = Factored(model.parameters(), lr=0.1)
    model.train()(EXAMPLE).sum().backward()
    optimizer.step()
    session.step()
    expected = {n: dict(optimizer.state[p]) for n, p in model.named_parameters() if p.dim() == 2}
    small = session.finish()
    session.carry_optimizer(optimizer)
    for name, old in expected.items():
        new = optimizer.state[small.get_parameter(name)]
        for key, axis in (("exp_row", 0), ("exp_col", 1)):
            assert torch.equal(new[key], old[key][session.architecture.kept(name, axis)])
