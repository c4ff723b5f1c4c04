"""``compressor.prepare``: masks in a training loop of one's own."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.costs import build
from compressor.errors import UnreachableBudgetError, UnsupportedModelError, UsageError
from compressor.pipeline.session import Session
from tests.api_models import EXAMPLE, Net, loader, net


def train(model: nn.Module, session: Session, steps: int, *, first: int = 0) -> None:
    """Steps ``first`` to ``first + steps`` of a plain loop, whatever happened before."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batches = [batch for _ in range(20) for batch in loader()]
    model.train()
    for step in range(first, first + steps):
        torch.manual_seed(step)
        inputs, targets = batches[step]
        loss = nn.functional.cross_entropy(model(inputs), targets) + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()


def macs(model: nn.Module) -> float:
    return build("flops", compressor.capture(model, EXAMPLE)).original


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("budgets", [{"flops": "50%"}, {"flops": "60%", "params": "40%", "memory": "90%"}])
def test_a_loop_of_ones_own_ends_under_every_budget(budgets: dict[str, str | float], search: str) -> None:
    model = net()
    names = list(model.state_dict())
    session = compressor.prepare(model, EXAMPLE, budgets, search=search, total_steps=24)
    train(model, session, 24)
    assert list(model.state_dict()) == names, "the masks are nowhere in the state"
    small = session.finish()
    assert type(small) is Net
    graph, before = compressor.capture(small, EXAMPLE), compressor.capture(net(), EXAMPLE)
    for cost, text in budgets.items():
        share = float(str(text).rstrip("%")) / 100
        assert build(cost, graph).original <= share * build(cost, before).original
    assert session.check.error <= 1e-9
    kept = session.architecture.kept("head.weight", 1)
    assert torch.equal(small.head.weight, model.head.weight[:, kept])


def test_only_training_is_masked_and_nothing_after_the_end() -> None:
    model = net()
    plain = {False: model.eval()(EXAMPLE).detach(), True: model.train()(EXAMPLE).detach()}
    model = net()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, total_steps=4, options={"start": 0.0})
    model.train()
    masked = model(EXAMPLE)
    assert not torch.allclose(masked, plain[True])
    with torch.no_grad():
        assert torch.equal(model(EXAMPLE), masked), "targets are of the network that learns"
    model = net()
    session.close()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, total_steps=4, options={"start": 0.0})
    assert torch.equal(model.eval()(EXAMPLE), plain[False])
    session.finish()
    assert torch.equal(model.eval()(EXAMPLE), plain[False])
    assert torch.equal(model.train()(EXAMPLE), plain[True])


def test_a_failing_forward_leaves_no_mask_behind() -> None:
    model = net()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, total_steps=4)
    before = [set(module.__dict__) for module in model.modules()]
    model.train()
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 5, 8, 8))
    assert [set(module.__dict__) for module in model.modules()] == before
    session.close()
    session.close()


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("stop", [5, 8, 13])  # both methods decide in between
def test_a_loop_stopped_half_way_goes_on_to_the_same_end(search: str, stop: int) -> None:
    def prepared(model: nn.Module) -> Session:
        return compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search=search, total_steps=16)

    whole = net()
    session = prepared(whole)
    train(whole, session, 16)
    expected = session.finish()

    model = net()
    session = prepared(model)
    train(model, session, stop)
    stored = io.BytesIO()
    torch.save({"model": model.state_dict(), "session": session.state_dict()}, stored)
    del model, session

    stored.seek(0)
    state: Any = torch.load(stored, weights_only=True)
    model = net()
    session = prepared(model)
    model.load_state_dict(state["model"])
    session.load_state_dict(state["session"])
    train(model, session, 16 - stop, first=stop)
    small = session.finish()
    found = small.state_dict()
    assert {name: t.shape for name, t in found.items()} == {n: t.shape for n, t in expected.state_dict().items()}
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.state_dict().items())


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_what_was_trained_is_what_comes_out(search: str) -> None:
    model = net()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search=search, total_steps=10)
    train(model, session, 10)
    trained = model(EXAMPLE).detach()
    with torch.no_grad():
        assert not torch.allclose(copy.deepcopy(model)(EXAMPLE), trained, rtol=1e-2), "masks matter"
    with session.masked():  # not applied twice
        torch.testing.assert_close(model(EXAMPLE), trained, rtol=1e-4, atol=1e-5)
    with session.masked(), torch.no_grad():
        validated = model.eval()(EXAMPLE)
    small = session.finish()
    torch.testing.assert_close(small.eval()(EXAMPLE), validated, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small.train()(EXAMPLE), trained, rtol=1e-4, atol=1e-5)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_the_state_of_another_session_is_refused() -> None:
    model = net()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, total_steps=4)
    other = compressor.prepare(net(), EXAMPLE, {"flops": "50%"}, search="dnarch", total_steps=4)
    before = [p.detach().clone() for p in other.parameters()]
    for state in (session.state_dict(), {"logits": torch.zeros(3), "steps": 1}):
        with pytest.raises(UsageError, match="prepare the same model"):
            other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_a_learned_resolution_needs_inputs_of_one_size() -> None:
    model = net()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search="dnarch", total_steps=4)
    assert session.graph.resolutions
    wide = torch.cat([EXAMPLE, EXAMPLE], 3)
    with pytest.raises(UsageError, match="8x16, and the network was traced at 8x8"):
        model.train()(wide)
    model.eval()(wide)
    with session.masked(), pytest.raises(UsageError, match="8x16"):
        model(wide)
    session.close()
    options = {"learn": "width,depth,kernel"}
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search="dnarch", options=options, total_steps=4)
    model.train()(wide)
    session.close()


def test_the_expected_cost_falls_towards_the_budget() -> None:
    model = net()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, total_steps=120, options={"depth": False})
    train(model, session, 1)
    (first,) = session.costs().values()
    train(model, session, 119, first=1)
    (last,) = session.costs().values()
    assert last < first
    assert last == pytest.approx(0.5, abs=0.1)


def test_patterns_and_grid() -> None:
    model = net()
    session = compressor.prepare(
        model, EXAMPLE, {"flops": "60%"}, total_steps=2, include=("up", "wide"), exclude=("wide",), round_to=4
    )
    train(model, session, 2)
    small: Any = session.finish()
    assert small.wide.out_channels == 32
    assert small.stem.out_channels == 16
    assert small.up.out_channels % 4 == 0
    assert macs(small) <= 0.6 * macs(net())


def test_wrong_arguments() -> None:
    def prepare(model: nn.Module | None = None, budgets: Any = None, **options: Any) -> Session:
        return compressor.prepare(model or net(), EXAMPLE, budgets or {"flops": "50%"}, **{"total_steps": 5, **options})

    with pytest.raises(UsageError, match="oneshot does not train"):
        prepare(search="oneshot")
    with pytest.raises(UsageError, match="Did you mean figs"):
        prepare(search="fig")
    with pytest.raises(UsageError, match="at least 1, not 0"):
        prepare(total_steps=0)
    for search in ("figs", "dnarch"):
        with pytest.raises(UsageError, match="no option temperature"):
            prepare(search=search, options={"temperature": 3})
        for option in ("grow", "live", "compiler") if search == "dnarch" else ("live",):
            with pytest.raises(UsageError, match=f"{option} is for compressor.compress"):
                prepare(search=search, options={option: 2})
    with pytest.raises(UsageError, match="looks at data"):
        prepare(search="dnarch", options={"order": "taylor"})
    with pytest.raises(UsageError, match="cannot learn 'pooling'"):
        prepare(search="dnarch", options={"learn": "pooling"})
    with pytest.raises(UsageError, match="that another network computes"):
        prepare(SearchableCCNN(2, 8, (8, 8), in_channels=3, num_classes=4))
    with pytest.raises(UsageError, match="did you mean"):
        prepare(exclude=("haed",))
    with pytest.raises(UnreachableBudgetError, match="smallest"):
        prepare(budgets={"params": 1})
    with pytest.raises(UnsupportedModelError, match="no parameters"):
        prepare(nn.ReLU())
    model = net()
    with pytest.raises(UnreachableBudgetError):
        prepare(model, {"params": 1})
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
