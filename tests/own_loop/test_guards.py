"""Loops that cannot be right are refused with what to do, and copies of a model with a session are plain models."""

from __future__ import annotations

import copy
import io
import math
import pickle
import types
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import compressor
from compressor.errors import UsageError
from tests.own_loop.loops import EXAMPLE, Net, batch, loop, made, opened


@pytest.mark.parametrize("steps", [1.5, True, False, "ten", None, math.nan, math.inf, [3], torch.tensor(2.5), 1 + 0j])
def test_steps_that_are_no_whole_number(steps: Any) -> None:
    model = made()
    with pytest.raises(UsageError, match="total_steps"):
        opened(model, steps=steps)
    assert "forward" not in vars(model)


@pytest.mark.parametrize("steps", [0, -1, -3])
def test_too_few_steps(steps: Any) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        opened(made(), steps=steps)


@pytest.mark.parametrize("steps", [3, "3", np.int64(3)])
def test_whole_numbers_of_any_kind(steps: Any) -> None:
    session = opened(made(), steps=steps)
    assert session.total_steps == 3
    session.close()


def test_two_sessions_on_one_model() -> None:
    model = made()
    session = opened(model)
    for again in (model, model.blocks[0], nn.Sequential(model)):
        with pytest.raises(UsageError, match="has an open session"):
            compressor.prepare(again, EXAMPLE, {"flops": "50%"}, total_steps=3)
    session.close()
    opened(model).close()
    session = opened(model)
    session.finish()
    opened(model).close()


def test_a_session_that_nobody_holds_is_still_there_and_goes_with_its_model() -> None:
    model = made()
    opened(model)
    with pytest.raises(UsageError, match="has an open session"):
        opened(model)
    opened(copy.deepcopy(model)).close()


def test_a_step_without_a_forward() -> None:
    model = made().train()
    session = opened(model)
    for wrong in (lambda: None, lambda: model.eval()(EXAMPLE), lambda: model.blocks[0](torch.randn(2, 16))):
        wrong()
        with pytest.raises(UsageError, match="no forward of the model in training mode"):
            session.step()
    model.train()(EXAMPLE).sum().backward()
    session.step()
    with pytest.raises(UsageError, match=r"once after each optimizer\.step"):
        session.step()


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_more_steps_than_were_announced(search: str) -> None:
    model = made().train()
    session = opened(model, search, 3)
    costs = []
    for step in range(6):
        (model(batch(step)[0]).square().mean() + session.cost_loss()).backward()
        if step == 3:
            with pytest.warns(UserWarning, match="All 3 steps of total_steps are done"):
                session.step()
        else:
            session.step()
        costs.append(session.costs())
    assert costs[2:] == costs[2:3] * 4
    session.finish()


def test_what_is_over_is_over() -> None:
    model = made().train()
    session = opened(model, steps=1)
    model(EXAMPLE).sum().backward()
    session.step()
    with session.masked(), pytest.raises(UsageError, match=r"inside session\.masked"):
        session.finish()
    session.finish()
    with pytest.raises(UsageError, match="finished"):
        session.finish()
    with pytest.raises(UsageError, match="closed"):
        session.step()
    with pytest.raises(UsageError, match="closed"), session.masked():
        pass
    session.close()
    assert not set(vars(model)) - set(vars(Net()))


@pytest.mark.parametrize("change", ["assigned", "parametrized", "another"])
def test_parameters_that_are_replaced_under_the_masks(change: str) -> None:
    model = made().train()
    session = opened(model)
    if change == "assigned":
        model.blocks[0].up.weight = nn.Parameter(model.blocks[0].up.weight.detach() * 2)
    elif change == "parametrized":
        parametrize.register_parametrization(model.blocks[0].up, "weight", nn.Identity())
    else:
        torch.nn.utils.parametrizations.weight_norm(model.blocks[0].up)
    with pytest.raises(UsageError, match=r"blocks.0.up.weight is .* since the masks were prepared"):
        model(EXAMPLE)
    session.close()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_forward_that_fails_leaves_no_mask(error: Any) -> None:
    model = made().train()
    session = opened(model)
    before = [set(vars(module)) for module in model.modules()]

    def fail(*args: Any) -> None:
        raise error

    handle = model.blocks[1].up.register_forward_hook(fail)
    for inside in (nullcontext, session.masked):
        with pytest.raises(error), inside():
            model(EXAMPLE)
        assert [set(vars(module)) for module in model.modules()] == before
    handle.remove()
    model(EXAMPLE).sum().backward()
    session.step()


def saved(model: nn.Module) -> nn.Module:
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    found: nn.Module = torch.load(stored, weights_only=False)
    return found


COPIES: dict[str, Callable[[nn.Module], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "old pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "torch.save": saved,
    "average": lambda model: AveragedModel(model).module,
    "inside another": lambda model: copy.deepcopy(nn.Sequential(model))[0],
    "a copy of a copy": lambda model: copy.deepcopy(copy.deepcopy(model)),
}


class Copies(Net):
    """Copies itself in its own way."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        found = Copies.__new__(Copies)
        memo[id(self)] = found
        found.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return found


class Keeps(Net):
    """Keeps its own dictionary."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)


@pytest.mark.parametrize("kind", [Net, Copies, Keeps])
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_copy_is_the_plain_model(how: str, kind: Any, search: str) -> None:
    model = made(kind).train()
    seen: list[int] = []
    if "pickle" not in how and how != "torch.save":
        model.register_forward_hook(lambda *_: seen.append(1))
    expected = model(EXAMPLE)
    session = opened(model, search, options={"start": -2.0} if search == "figs" else None)
    copied = COPIES[how](model)
    assert type(copied) is kind
    assert set(vars(copied)) == set(vars(made(kind)))
    assert torch.equal(copied.train()(EXAMPLE), expected)
    if search == "figs":
        assert not torch.allclose(model(EXAMPLE), expected), "the original has its masks"
    with session.masked():
        masked = model(EXAMPLE)
        if how in ("deepcopy", "average", "inside another", "a copy of a copy"):
            inside = COPIES[how](model)
            assert all(not isinstance(v, Tensor) for m in inside.modules() for v in vars(m).values())
        else:
            with pytest.raises(UsageError, match="store it after that"):
                COPIES[how](model)
        assert torch.equal(model(EXAMPLE), masked)
    model(EXAMPLE).sum().backward()
    session.step()
    session.close()
    assert set(vars(model)) == set(vars(made(kind)))


def test_a_moving_average_goes_along() -> None:
    model = made().train()
    session = opened(model, steps=6)
    average = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(6):
        x, y = batch(step)
        (nn.functional.cross_entropy(model(x), y) + session.cost_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
        average.update_parameters(model)
    small = session.finish()
    smoothed = session.architecture.apply_(copy.deepcopy(average.module))
    assert {n: t.shape for n, t in smoothed.state_dict().items()} == {n: t.shape for n, t in small.state_dict().items()}
    assert smoothed.eval()(EXAMPLE).shape == (2, 3)


def test_a_forward_that_was_put_on_the_instance_comes_back() -> None:
    model = made()
    model.forward = own = types.MethodType(lambda self, x: Net.forward(self, x) * 2, model)
    loop(model, steps=2)
    assert model.forward is own
    torch.testing.assert_close(model.eval()(EXAMPLE), Net.forward(model, EXAMPLE) * 2)
    model = made()
    session = opened(model)
    inner = model.forward
    model.forward = lambda x: inner(x) + 1  # as wrappers for mixed precision do, after prepare
    session.close()
    torch.testing.assert_close(model(EXAMPLE), made()(EXAMPLE) + 1)


def test_replicas_are_refused() -> None:
    model = made()
    session = opened(model)
    with pytest.raises(UsageError, match="use DistributedDataParallel"):
        model._replicate_for_data_parallel()
    session.close()
    model._replicate_for_data_parallel()


def _wrapped(model: nn.Module) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, nn.Linear))


def _normed(model: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(next(m for m in model.modules() if isinstance(m, nn.Linear)))


def _exchanged(model: nn.Module) -> None:
    name = next(name for name, m in model.named_modules() if isinstance(m, nn.Linear))
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Sequential(model.get_submodule(name)))


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("change", [_wrapped, _normed, _exchanged])
def test_modules_that_were_changed_since_are_refused_with_what_to_do(
    change: Callable[[nn.Module], None], search: str
) -> None:
    model = made()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search=search, total_steps=6)
    change(model)
    with pytest.raises(UsageError, match=r"before compressor\.prepare"):
        loop(model, search, session=session)
