"""Masks in a loop that Accelerate runs: what any loop of one's own would do with them, to the bit."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import compressor
from compressor.errors import UnreachableBudgetError, UsageError
from tests.integrations.trained import BUDGET, assert_same, assert_small, data, kill_after, network, run
from tests.own_loop.loops import EXAMPLE

accelerate = pytest.importorskip("accelerate", reason="the extra accelerate is not installed")

from compressor.integrations.accelerate import prepare  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS = 3


@pytest.fixture(autouse=True)
def _alone() -> Any:
    """An accelerator is one for a process, unless it is forgotten."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


class Loop:
    """As users write it.

    Args:
        stop: epoch before which it ends with an error.
    """

    def __init__(self, parts: int = 2, *, total_steps: int | None = None, **arguments: Any) -> None:
        torch.manual_seed(0)
        precision = arguments.pop("mixed_precision", "no")
        self.accelerator = accelerate.Accelerator(
            cpu=True, gradient_accumulation_steps=parts, mixed_precision=precision
        )
        model = network()
        torch.manual_seed(0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = DataLoader(data(), batch_size=8)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        steps = EPOCHS * math.ceil(len(self.loader) / parts) if total_steps is None else total_steps
        budgets = arguments.pop("budgets", BUDGET)
        self.masks = prepare(self.accelerator, self.model, EXAMPLE, budgets, total_steps=steps, **arguments)
        self.steps = 0

    def epoch(self) -> None:
        self.model.train()
        for x, y in self.loader:
            with self.accelerator.accumulate(self.model):
                loss = F.cross_entropy(self.model(x), y) + self.masks.cost_loss()
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.steps += self.masks.step()
                self.optimizer.zero_grad()
                kill_after(self.steps)

    def run(self, folder: Path, *, stop: int = -1) -> nn.Module:
        """To the end, from the last checkpoint there is."""
        found = sorted(folder.glob("epoch*"))
        if found:
            self.accelerator.load_state(str(found[-1]))
        for epoch in range(len(found), EPOCHS):
            if epoch == stop:
                raise RuntimeError("stopped")
            self.epoch()
            self.accelerator.save_state(str(folder / f"epoch{epoch}"))
        small: nn.Module = self.masks.finish()
        return small


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_it_is_the_loop_of_ones_own(tmp_path: Path, parts: int) -> None:
    model = network()
    torch.manual_seed(0)
    batches = list(DataLoader(data(), batch_size=8))
    session = compressor.prepare(model, EXAMPLE, BUDGET, total_steps=EPOCHS * math.ceil(len(batches) / parts))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(EPOCHS):
        for number, (x, y) in enumerate(batches, 1):
            ((F.cross_entropy(model(x), y) + session.cost_loss()) / parts).backward()
            if number % parts == 0 or number == len(batches):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                session.step()
                optimizer.zero_grad()
    loop = Loop(parts)
    small = loop.run(tmp_path)
    assert loop.steps == session.steps_done
    assert_small(small)
    assert_same(small, session.finish())


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_stopped_and_resumed_it_ends_as_it_would_have(tmp_path: Path, search: str) -> None:
    alone = Loop(search=search).run(tmp_path / "alone")
    with pytest.raises(RuntimeError, match="stopped"):
        Loop(search=search).run(tmp_path / "again", stop=2)
    again = Loop(search=search)
    assert_same(again.run(tmp_path / "again"), alone)
    assert again.masks.session.steps_done == 9


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_it_would_have(tmp_path: Path) -> None:
    for name, kill in (("alone", None), ("again", 5), ("again", None)):
        run(__name__, tmp_path / name, kill_after=kill)
    alone, again = (torch.load(tmp_path / name / "small.pt", weights_only=True) for name in ("alone", "again"))
    assert alone.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in alone.items())


def test_steps_that_are_left_out_move_no_masks() -> None:
    loop = Loop(1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=10**6, backoff_factor=2.0**-60)
    loop.accelerator.scaler = scaler
    torch_optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.001)
    loop.optimizer = accelerate.optimizer.AcceleratedOptimizer(torch_optimizer, scaler=scaler)
    skipped, logits = [], []
    for _ in range(EPOCHS):
        for x, y in loop.loader:
            with loop.accelerator.accumulate(loop.model):
                loop.accelerator.backward(64 * (F.cross_entropy(loop.model(x), y) + loop.masks.cost_loss()))
                loop.optimizer.step()
                loop.masks.step()
                loop.optimizer.zero_grad()
                skipped.append(loop.optimizer.step_was_skipped)
                logits.append(torch.cat([p.detach().clone().flatten() for p in loop.masks.session.parameters()]))
    assert skipped[0]
    assert not skipped[-1]
    first = skipped.index(False)
    assert all(torch.equal(each, logits[0]) for each in logits[:first])
    assert not torch.equal(logits[first], logits[0])
    assert_small(loop.masks.finish())


def test_half_precision_and_an_optimizer_that_goes_on(tmp_path: Path) -> None:
    loop = Loop(mixed_precision="bf16")
    small = loop.run(tmp_path)
    assert loop.masks.session.check.error < 1e-9
    assert_small(small)
    loop.masks.carry_optimizer(loop.optimizer)
    before = [p.detach().clone() for p in small.parameters()]
    F.cross_entropy(small(EXAMPLE), torch.tensor([0, 1])).backward()
    loop.optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))
    assert all(p.grad is None for p in loop.model.parameters()), "the small network runs by itself"


def test_the_model_itself_is_made_small_where_it_is_asked_for(tmp_path: Path) -> None:
    loop = Loop(replace=True)
    small = loop.run(tmp_path)
    assert small is loop.accelerator.unwrap_model(loop.model)
    assert_small(loop.model)
    with pytest.raises(UsageError, match="session is finished"):
        loop.masks.finish()
    with pytest.raises(UsageError, match="closed"):
        loop.masks.step()


def test_validation_sees_the_masked_network() -> None:
    loop = Loop(1)
    for _ in range(EPOCHS):
        loop.epoch()
    batches = [x for x, _ in loop.loader]
    loop.model.eval()
    with loop.masks.masked(), torch.no_grad():
        seen = [loop.model(x) for x in batches]
    assert loop.masks.costs()["flops"] <= 0.5
    small = loop.masks.finish().eval()
    for x, found in zip(batches, seen, strict=True):
        torch.testing.assert_close(small(x), found, rtol=1e-4, atol=1e-5)


def test_what_prepare_refuses_comes_as_its_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="oneshot does not train"):
        Loop(search="oneshot")
    with pytest.raises(UsageError, match="total_steps"):
        Loop(total_steps=0)
    with pytest.raises(UnreachableBudgetError):
        Loop(budgets={"flops": "0.01%"})
    loop = Loop()
    with pytest.raises(UsageError, match="has an open session"):
        prepare(loop.accelerator, loop.model, EXAMPLE, BUDGET, total_steps=3)
    loop.epoch()
    loop.accelerator.save_state(str(tmp_path))
    with pytest.raises(UsageError, match="masks of 'figs flops 50%', and 'figs flops 60%'"):
        Loop(budgets={"flops": "60%"}).accelerator.load_state(str(tmp_path))
    with pytest.raises(UsageError, match="prepare it with total_steps=9"):
        Loop(total_steps=4).accelerator.load_state(str(tmp_path))


def main(folder: Path) -> None:
    """A training in a process of its own."""
    folder.mkdir(exist_ok=True)
    torch.save(Loop().run(folder).state_dict(), folder / "small.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
