"""Masks in a Lightning training: what any loop of one's own would do with them, to the bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import compressor
from compressor.errors import UnreachableBudgetError, UsageError
from tests.integrations.trained import BUDGET, Endless, assert_same, assert_small, data, kill_after, network, run
from tests.own_loop.loops import EXAMPLE

lightning = pytest.importorskip("lightning", reason="the extra lightning is not installed")

from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint  # noqa: E402

from compressor.integrations.lightning import CompressionCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Lit(lightning.LightningModule):
    """As users write it; nothing in it knows of compression."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = network(), nn.CrossEntropyLoss()
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss: Tensor = self.loss(self.net(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.seen.append(self.net(batch[0]))

    def on_train_batch_end(self, *_: Any) -> None:
        kill_after(self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Stops(lightning.Callback):
    """Ends a training in the middle, as a user does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.after:
            raise RuntimeError("stopped")


def fit(
    folder: Path,
    lit: Any = None,
    *,
    callback: Any = None,
    loader: Any = None,
    ckpt_path: Any = None,
    others: Any = (),
    **trainer: Any,
) -> tuple[Any, Any]:
    """The module and its callback after ``fit``."""
    lit = Lit() if lit is None else lit
    callback = callback or CompressionCallback(EXAMPLE, BUDGET)
    settings: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_epochs": 4, "accumulate_grad_batches": 2}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    made = lightning.Trainer(
        **{**settings, **quiet, "default_root_dir": folder, **trainer},
        callbacks=[callback, ModelCheckpoint(folder, save_last=True), *others],
    )
    loader = DataLoader(data(), batch_size=8) if loader is None else loader
    made.fit(lit, loader, DataLoader(data(), batch_size=20), ckpt_path=ckpt_path)
    return lit, callback


def by_hand(epochs: int, parts: int, clip: float | None = None) -> nn.Module:
    """The loop that Lightning runs."""
    model = network()
    batches = list(DataLoader(data(), batch_size=8))
    steps = epochs * -(-len(batches) // parts)
    session = compressor.prepare(model, EXAMPLE, BUDGET, total_steps=steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for number, (x, y) in enumerate(batches, 1):
            (F.cross_entropy(model(x), y) / parts).backward()
            if number % parts == 0 or number == len(batches):
                session.cost_loss().backward() if session.cost_loss().requires_grad else None  # type: ignore[no-untyped-call]
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
                session.step()
    return session.finish()


@pytest.mark.parametrize(("parts", "clip"), [(1, None), (2, 0.1)])
def test_it_is_the_loop_of_ones_own(tmp_path: Path, parts: int, clip: float | None) -> None:
    lightning.seed_everything(0, verbose=False)
    expected = by_hand(3, parts, clip)
    lightning.seed_everything(0, verbose=False)
    lit, callback = fit(tmp_path, max_epochs=3, accumulate_grad_batches=parts, gradient_clip_val=clip)
    assert callback.model is lit.net
    assert_small(lit.net)
    assert_same(lit.net, expected)


@pytest.mark.parametrize("settings", [{"log_every_n_steps": 0}, {"fast_dev_run": 2}, {"limit_train_batches": 1}])
def test_trainers_that_do_little(tmp_path: Path, settings: dict[str, Any]) -> None:
    lit, _ = fit(tmp_path, max_epochs=1, **settings)
    assert_small(lit.net)


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_stopped_and_resumed_it_ends_as_it_would_have(tmp_path: Path, search: str) -> None:
    def callback() -> Any:
        return CompressionCallback(EXAMPLE, BUDGET, search=search)

    alone, decided = fit(tmp_path / "alone", callback=callback())
    stopped = callback()
    lit = Lit()
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path / "again", lit, callback=stopped, others=[Stops(8)])
    assert stopped.model is None
    compressor.prepare(lit.net, EXAMPLE, BUDGET, total_steps=1).close()  # no masks are left in it
    again, resumed = fit(tmp_path / "again", callback=callback(), ckpt_path=tmp_path / "again" / "last.ckpt")
    assert resumed.session.steps_done == decided.session.steps_done == 12
    assert resumed.architecture == decided.architecture
    assert_same(again.net, alone.net)


def test_a_checkpoint_that_an_error_leaves_has_the_masks(tmp_path: Path) -> None:
    saver = lightning.pytorch.callbacks.OnExceptionCheckpoint(tmp_path, "error")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path, others=[saver, Stops(8)])
    states = torch.load(tmp_path / "error.ckpt", weights_only=False)["callbacks"]
    (state,) = (each for name, each in states.items() if name.startswith("CompressionCallback"))
    assert state["session"]["steps"] == 8
    assert state["total_steps"] == 12


def test_a_checkpoint_without_masks_is_refused(tmp_path: Path) -> None:
    plain = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    plain.fit(Lit(), DataLoader(data(), batch_size=8))
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(UsageError, match="of step 5 of a training without this callback"):
        fit(tmp_path, ckpt_path=tmp_path / "plain.ckpt")


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_it_would_have(tmp_path: Path) -> None:
    for name, kill in (("alone", None), ("again", 7), ("again", None)):
        run(__name__, tmp_path / name, kill_after=kill)
    alone, again = (torch.load(tmp_path / name / "small.pt", weights_only=True) for name in ("alone", "again"))
    assert alone.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in alone.items())


@pytest.mark.slow
def test_two_processes_train_the_same_network(tmp_path: Path) -> None:
    run(__name__, tmp_path, "ddp")
    one, other = (torch.load(tmp_path / f"small{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_what_is_small_is_loaded_into_what_becomes_small(tmp_path: Path) -> None:
    lit, _ = fit(tmp_path)
    lit.trainer.save_checkpoint(tmp_path / "small.ckpt")
    fresh, callback = Lit(), CompressionCallback(EXAMPLE, BUDGET)
    trainer = lightning.Trainer(accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False)
    trainer.validate(fresh, DataLoader(data(), batch_size=40), ckpt_path=tmp_path / "small.ckpt", verbose=False)
    assert_same(fresh.net, lit.net)
    assert callback.model is fresh.net
    assert "on_load_checkpoint" not in vars(fresh)


@pytest.mark.parametrize("given", [{"ckpt_path": "best"}, {"ckpt_path": None}, {}])
def test_a_checkpoint_of_the_whole_network_is_not_loaded_into_the_small_one(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    class Scored(Lit):
        test_step = Lit.validation_step

    lit, _ = fit(tmp_path, Scored())
    loader, what = DataLoader(data(), batch_size=40), lit if "ckpt_path" in given else None
    if given.get("ckpt_path", "best") is None:
        lit.trainer.test(what, loader, verbose=False, **given)
        assert torch.equal(lit.seen[-1], lit.net(data().tensors[0]))
        return
    with pytest.raises(UsageError, match=r"holds the whole network.* trainer.test\(lit, loader\)"):
        lit.trainer.test(what, loader, verbose=False, **given)


@pytest.mark.parametrize("name", ["StochasticWeightAveraging", "EMAWeightAveraging"])
def test_averages_of_weights_are_made_small(tmp_path: Path, name: str) -> None:
    kind = getattr(lightning.pytorch.callbacks, name, None)
    if kind is None:
        pytest.skip(f"this Lightning has no {name}")
    averages = kind(decay=0.9) if name.startswith("EMA") else kind(0.05, swa_epoch_start=2)
    assert_small(fit(tmp_path, others=[averages])[0].net)


def test_steps_after_the_search_train_what_was_decided(tmp_path: Path) -> None:
    callback = CompressionCallback(EXAMPLE, BUDGET, total_steps=4)
    lit, _ = fit(tmp_path, callback=callback)
    assert callback.session.total_steps == 4
    assert callback.session.steps_done == 12
    assert_small(lit.net)
    before = [p.detach().clone() for p in lit.net.parameters()]
    _, again = fit(tmp_path / "tuned", lit, callback=callback, max_epochs=1)
    assert again.model is lit.net, "a network that is finished is trained as it is"
    assert any(not torch.equal(a, b) for a, b in zip(before, lit.net.parameters(), strict=True))


def test_validation_sees_the_masked_network(tmp_path: Path) -> None:
    callback = CompressionCallback(EXAMPLE, BUDGET, replace=False)
    lit, _ = fit(tmp_path, callback=callback, num_sanity_val_steps=0)
    whole = lit.net
    assert callback.model is not whole
    assert_small(callback.model)
    batches = [x for x, _ in DataLoader(data(), batch_size=20)]
    for seen, x in zip(lit.seen[-2:], batches, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(seen, callback.model.eval()(x), rtol=1e-4, atol=1e-5)
            assert not torch.allclose(seen, whole.eval()(x), rtol=1e-2)


class Parts(Lit):
    """A network in parts, with the module's own forward."""

    def __init__(self) -> None:
        super().__init__()
        del self.net
        self.first, self.second = nn.Linear(12, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).relu())
        return out

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss: Tensor = self.loss(self(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self(batch[0])


def test_the_whole_module_is_compressed_where_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 modules with parameters \('first', 'second'\)"):
        fit(tmp_path, Parts())
    lit, callback = fit(tmp_path, Parts(), callback=CompressionCallback(EXAMPLE, BUDGET, module=""))
    assert callback.model is lit
    assert lit.first.out_features < 32
    assert lit(EXAMPLE).shape == (2, 3)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_bring_back_weights_alone_are_refused(strategy: str) -> None:
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False)
    with pytest.raises(UsageError, match="the small one would be lost; use strategy='ddp'"):
        CompressionCallback(EXAMPLE, BUDGET).on_fit_start(trainer, Lit())


class Manual(Lit):
    """Steps as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        if index % 2:
            self.optimizers().step()
            self.optimizers().zero_grad()
        return loss


def test_a_loop_that_steps_by_itself_says_how_often(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="total_steps="):
        fit(tmp_path, Manual(), accumulate_grad_batches=1)
    callback = CompressionCallback(EXAMPLE, BUDGET, total_steps=8)
    lit, _ = fit(tmp_path, Manual(), callback=callback, accumulate_grad_batches=1)
    assert callback.session.steps_done == 8
    assert_small(lit.net)


@pytest.mark.parametrize("unbounded", [{"max_epochs": -1}, {"max_epochs": None}])
def test_max_steps_says_how_often_a_loop_steps_by_itself(tmp_path: Path, unbounded: dict[str, Any]) -> None:
    _, callback = fit(tmp_path, Manual(), accumulate_grad_batches=1, max_steps=6, **unbounded)
    assert callback.session.steps_done == 6
    assert_small(callback.model)
    with pytest.raises(UsageError, match=r"give the Trainer max_steps= without max_epochs"):
        fit(tmp_path, Manual(), accumulate_grad_batches=1, max_steps=6, max_epochs=2)


def test_accumulation_that_changes_takes_max_steps(tmp_path: Path) -> None:
    changing = GradientAccumulationScheduler({0: 1, 1: 2})
    _, callback = fit(tmp_path, others=(changing,), accumulate_grad_batches=1, max_steps=9, max_epochs=-1)
    assert callback.session.steps_done == 9


def test_a_loader_without_length_needs_max_steps(tmp_path: Path) -> None:
    endless = DataLoader(Endless(), batch_size=8)
    with pytest.raises(UsageError, match=r"not known beforehand.*max_steps"):
        fit(tmp_path, loader=endless, max_epochs=1, limit_val_batches=0)
    lit, callback = fit(tmp_path, loader=endless, max_steps=6, max_epochs=-1, limit_val_batches=0)
    assert callback.session.steps_done == 6
    assert_small(lit.net)


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize(("precision", "kind"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_other_precisions(tmp_path: Path, search: str, precision: Any, kind: torch.dtype) -> None:
    callback = CompressionCallback(EXAMPLE.to(kind), BUDGET, search=search)
    lit, _ = fit(tmp_path, callback=callback, precision=precision)
    assert_small(lit.net.float())


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_example_gets_the_type_that_batches_get(tmp_path: Path, precision: Any) -> None:
    lit, _ = fit(tmp_path, precision=precision, max_epochs=1)
    assert_small(lit.net.float())


def test_steps_that_a_scaler_leaves_out_move_no_masks(tmp_path: Path) -> None:
    """Half precision's scaler begins too high: its first steps overflow and are left out."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=10**6, backoff_factor=2.0**-60)
    logits: list[Tensor] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            session = trainer.callbacks[0].session
            logits.append(torch.cat([p.detach().clone().flatten() for p in session.parameters()]))

    precision = MixedPrecision("16-mixed", "cpu", scaler)
    lit, callback = fit(
        tmp_path, accumulate_grad_batches=1, plugins=[precision], others=[Watch()], gradient_clip_val=1.0
    )
    assert callback.session.steps_done == 20
    assert callback.session._skipped >= 1
    assert set(logits[0].tolist()) == {2.5, 4.0}, "where units and blocks begin"
    assert not torch.equal(logits[-1], logits[0])
    assert_small(lit.net)


@pytest.mark.slow
def test_a_compiled_module(tmp_path: Path) -> None:
    lit = Lit()
    fit(tmp_path, torch.compile(lit, backend="eager"))
    plain, _ = fit(tmp_path / "plain")
    assert_same(lit.net, plain.net)


def test_what_prepare_refuses_comes_as_its_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="oneshot does not train"):
        CompressionCallback(EXAMPLE, BUDGET, search="oneshot")
    with pytest.raises(UsageError, match="flop"):
        CompressionCallback(EXAMPLE, {"flop": "50%"})
    with pytest.raises(TypeError, match="speed"):
        CompressionCallback(EXAMPLE, BUDGET, speed=1)
    with pytest.raises(UsageError, match="total_steps"):
        CompressionCallback(EXAMPLE, BUDGET, total_steps=0)
    with pytest.raises(UnreachableBudgetError):
        fit(tmp_path, callback=CompressionCallback(EXAMPLE, {"flops": "0.01%"}))
    asleep = Lit()
    asleep.net.eval()
    with pytest.raises(UsageError, match="in evaluation mode"):
        fit(tmp_path, asleep)
    with pytest.raises(UsageError, match="no module 'nett'"):
        fit(tmp_path, callback=CompressionCallback(EXAMPLE, BUDGET, module="nett"))
    inner = CompressionCallback(torch.randn(1, 16), BUDGET, module="net.blocks.0")
    with pytest.raises(UsageError, match="has an open session"):
        fit(tmp_path, others=[inner])
    fit(tmp_path / "other")
    with pytest.raises(UsageError, match="masks of 'figs flops 50%', and 'figs params 40%'"):
        fit(
            tmp_path,
            callback=CompressionCallback(EXAMPLE, {"params": "40%"}),
            ckpt_path=tmp_path / "other" / "last.ckpt",
        )


def main(folder: Path, how: str = "") -> None:
    """A training in a process of its own."""
    lightning.seed_everything(0, verbose=False)
    last = folder / "last.ckpt"
    several = {"devices": 2, "strategy": "ddp"} if how == "ddp" else {}
    lit, _ = fit(folder, ckpt_path=last if last.exists() else None, **several)
    torch.save(lit.net.state_dict(), folder / f"small{lit.trainer.global_rank if several else ''}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
