"""Gradients of masks that are scaled, accumulated, not finite, or not meant for a step."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor
from compressor.errors import TrainingError, UsageError
from compressor.process.ranks import Ranks
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, Run, batch, flat, loop, made, opened

STEPS = 8


def scaled(
    search: str,
    *,
    initial: float = 2.0**16,
    weight: float = 1.0,
    spoil: Callable[[int, nn.Module, Any], None] | None = None,
    zero_first: bool = False,
    kind: Any = Net,
) -> tuple[Run, nn.Module, list[Tensor]]:
    """A loop with a gradient scaler; ``spoil`` may change gradients between the backward and the step."""
    model = made(kind).train()
    session = opened(model, search, STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=initial)
    found, at = Run(), []
    for step in range(STEPS):
        x, y = batch(step)
        loss = weight * (F.cross_entropy(model(x), y) + session.cost_loss())
        if not zero_first:
            optimizer.zero_grad()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if spoil is not None:
            spoil(step, model, session)
        scaler.step(optimizer)
        scaler.update()
        if zero_first:
            optimizer.zero_grad()
        session.step()
        found.losses.append(loss.item())
        at.append(torch.cat([p.detach().reshape(-1).clone() for p in session.parameters()]))
    found.small = session.finish()
    found.kept = session.architecture.to_json()
    return found, model, at


def plain(search: str) -> Run:
    model = made(Net).train()
    session = opened(model, search, STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = Run()
    for step in range(STEPS):
        x, y = batch(step)
        loss = F.cross_entropy(model(x), y) + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()
        found.losses.append(loss.item())
    found.small = session.finish()
    found.kept = session.architecture.to_json()
    return found


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("zero_first", [False, True])
def test_a_loss_scale_changes_nothing(search: str, zero_first: bool) -> None:
    scaled(search, zero_first=zero_first)[0].same(plain(search))


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_scale_that_overflows_costs_its_steps_and_no_more(search: str) -> None:
    """Scaled so far that the first steps are infinite."""
    with pytest.warns(UserWarning, match="Masks did not move in step 1") as said:
        found, model, at = scaled(search, initial=2.0**127, weight=8.0)
    assert len(said) == 1, "said once"
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert torch.equal(at[0], at[1])
    assert search == "dnarch" or not torch.equal(at[0], at[-1])
    assert all(math.isfinite(loss) for loss in found.losses)


@pytest.mark.parametrize("zero_first", [False, True])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_step_that_the_scaler_left_out_moves_no_mask(search: str, value: float, zero_first: bool) -> None:
    """One weight overflows, and no mask."""

    def spoil(step: int, model: Any, session: Any) -> None:
        if step == 2:
            model.head.bias.grad.fill_(value)

    with pytest.warns(UserWarning, match="left out"):
        _, _, at = scaled(search, spoil=spoil, zero_first=zero_first)
    assert torch.equal(at[1], at[2])
    assert search == "dnarch" or not torch.equal(at[0], at[-1])


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("steps", [{0}, {3}, {0, 1, 2, 5}])
def test_masks_that_are_not_finite_do_not_move(search: str, value: float, steps: set[int]) -> None:
    model = made(Convolutions).train()
    session = opened(model, search, STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lost = 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(STEPS):
            x, y = batch(step)
            (F.cross_entropy(model(x), y) + session.cost_loss()).backward()
            before = [p.detach().clone() for p in session.parameters()]
            spoiled = [p for p in session.parameters() if p.grad is not None and step in steps]
            for parameter in spoiled:
                parameter.grad.view(-1)[0] = value
            optimizer.step()
            optimizer.zero_grad()
            session.step()
            lost += bool(spoiled)
            if spoiled:
                assert all(torch.equal(a, b) for a, b in zip(before, session.parameters(), strict=True))
    assert len([w for w in said if "not finite" in str(w.message)]) == (lost > 0)
    assert lost or search == "dnarch"
    small = session.finish().eval()
    assert bool(torch.isfinite(small(EXAMPLE)).all())
    assert all(0 < c < 1 for c in session.costs().values())


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_nothing_is_decided_on_what_is_lost(search: str) -> None:
    model = made(Net).train()
    session = opened(model, search, 4)
    with torch.no_grad():
        model.head.weight[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"head\.weight has become NaN.*earlier checkpoint"):
        session.finish()
    with torch.no_grad():
        model.head.weight[0, 0] = 0.0
        before = [p.clone() for p in session.parameters()]
        session.parameters()[0].view(-1)[0] = math.nan
    with pytest.raises(TrainingError, match="masks have become NaN"):
        session.finish()
    with pytest.raises(UsageError, match="NaN"):
        session.load_state_dict(session.state_dict())
    with torch.no_grad():
        for parameter, value in zip(session.parameters(), before, strict=True):
            parameter.copy_(value)
    assert bool(torch.isfinite(session.finish()(EXAMPLE)).all())


def test_a_loop_without_one_finite_gradient_is_not_decided() -> None:
    model = made(Net).train()
    session = opened(model, steps=2)
    (model(EXAMPLE).sum() * math.nan).backward()
    with pytest.warns(UserWarning, match="not finite"):
        session.step()
    (model(EXAMPLE).sum() * math.nan).backward()
    session.step()
    with pytest.raises(TrainingError, match="None of 2 steps had finite gradients"):
        session.finish()


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("scale", [1.0, 2.0**12])
def test_accumulated_parts_are_the_batch(search: str, parts: int, scale: float) -> None:
    def gradients(parts: int) -> tuple[Tensor, Tensor, Tensor]:
        model = made(Net).train()
        session = opened(model, search, 4)
        x, y = batch(0)
        for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (scale / parts * (F.cross_entropy(model(a), b) + session.cost_loss())).backward()
        weights, masks = flat(model.parameters()) / scale, flat(session.parameters()) / scale
        before = torch.cat([p.detach().reshape(-1).clone() for p in session.parameters()])
        session.step()
        return weights, masks, torch.cat([p.detach().reshape(-1) for p in session.parameters()]) - before

    for mine, expected in zip(gradients(parts), gradients(1), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 3, 25, 29, 31])
def test_shares_of_a_scaled_loss_add_up_to_its_scale(parts: int) -> None:
    """The sum of so many shares in float32 may fall short of the whole."""
    model = made(Net).train()
    session = opened(model, steps=4)
    x, y = batch(0)
    for _ in range(parts):
        loss = (F.cross_entropy(model(x), y) + session.cost_loss()) / parts
        (torch.tensor(2.0**16) * loss).backward()
    before = flat(session.parameters())
    assert session._gradients.settle(Ranks()) is None
    assert torch.equal(flat(session.parameters()), before / 2.0**16)


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("kind", [Net, Convolutions])
def test_every_batch_of_a_validation_sees_the_network_that_is_left(kind: Any, search: str) -> None:
    model = made(kind).train()
    session = opened(model, search, 4)
    for step in range(4):
        x, y = batch(step)
        (F.cross_entropy(model(x), y) + session.cost_loss()).backward()
        session.step()
    model.eval()
    with session.masked(), torch.no_grad():
        seen = [model(batch(step)[0]) for step in range(3)]
        past = [model.forward(batch(step)[0]) for step in range(3)]
    small = session.finish().eval()
    for step in range(3):
        expected = small(batch(step)[0])
        torch.testing.assert_close(seen[step], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(past[step], expected, rtol=1e-4, atol=1e-5)


def test_every_forward_of_a_step_sees_the_same_masks_and_every_step_others() -> None:
    model = made(Net).train()
    session = opened(model, options={"start": 0.0})
    outputs = []
    for _ in range(3):
        first, second = model(EXAMPLE), model(EXAMPLE)
        with session.masked():
            assert torch.equal(model(EXAMPLE), first)
        assert torch.equal(first, second)
        outputs.append(first)
        first.sum().backward()
        session.step()
    assert not any(torch.allclose(a, b) for a, b in itertools.pairwise(outputs))


def test_draws_are_those_of_the_seed_and_leave_generators_alone() -> None:
    def first(seed: int) -> Tensor:
        torch.manual_seed(0)
        model = Net().train()
        torch.manual_seed(seed)
        session = opened(model, options={"start": 0.0})
        before = torch.get_rng_state()
        out: Tensor = model(EXAMPLE)
        assert torch.equal(before, torch.get_rng_state())
        session.close()
        return out

    assert torch.equal(first(1), first(1))
    assert not torch.allclose(first(1), first(2))


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_gradients_that_a_loop_throws_away_do_not_reach_the_masks(search: str) -> None:
    """A generator's backward through its critic, whose own step then begins with ``zero_grad``."""

    def masks(through: bool) -> Tensor:
        model = made(Net).train()
        session = opened(model, search, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(batch(0)[0]).sum().backward()
        optimizer.zero_grad()
        session.zero_grad()
        if through:
            model(batch(1)[0]).sum().backward()
        loss = model(batch(2)[0]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        return flat(session.parameters())

    torch.testing.assert_close(masks(True), masks(False))


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_closure_that_runs_often_sees_one_function(search: str) -> None:
    model = made(Convolutions).train()
    session = opened(model, search, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4, line_search_fn="strong_wolfe")
    for step in range(3):
        x, y = batch(step)
        seen: list[float] = []

        def closure(x: Tensor = x, y: Tensor = y, seen: list[float] = seen) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            (loss + session.cost_loss()).backward()
            seen.append(loss.item())
            return loss

        optimizer.step(closure)
        assert min(seen) < seen[0]
        session.step()
    assert session.finish()(EXAMPLE).shape == (2, 3)


def test_gradients_of_gradients() -> None:
    model = made(Net).train()
    session = opened(model)
    x = batch(0)[0].requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (slope.norm(dim=1) - 1).square().mean().backward()
    assert float(flat(session.parameters()).abs().sum()) > 0
    every = [*model.parameters(), *session.parameters()]
    found = torch.autograd.grad(model(x).sum(), every, allow_unused=True)
    assert all(g is not None for g in found[-len(session.parameters()) :])


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_low_precision_forwards(search: str) -> None:
    model = made(Net).train()
    session = opened(model, search, STEPS)

    def call(x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    found = loop(model, search, STEPS, call=call, session=session)
    assert all(math.isfinite(loss) for loss in found.losses)
    assert all(bool(torch.isfinite(m).all()) for m in found.masks)


@pytest.mark.parametrize("kind", [Net, Convolutions])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_models_in_half_precision_learn(search: str, kind: Any) -> None:
    """Masks of function calls do not widen what the next layer gets."""
    model, example = made(kind).bfloat16().train(), EXAMPLE.bfloat16()
    session = compressor.prepare(model, example, {"flops": "50%"}, search=search, total_steps=3)
    (model(example).sum() + session.cost_loss()).backward()
    assert bool(flat(session.parameters()).count_nonzero())
    session.step()
    with session.masked(), torch.no_grad():
        assert model.eval()(example).dtype is torch.bfloat16
    assert session.finish()(example).dtype is torch.bfloat16
