"""What the training loop promises: the same bits under a seed, nothing of the caller's disturbed, NaN never saved."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import DataError, TrainingError, UsageError
from compressor.storage.files import load_safetensors
from compressor.train import Hooks, TrainConfig, Trainer, evaluate
from compressor.train.layout import copied_to_device
from compressor.train.rng import rng_state
from tests.train.tiny import RandomSplit, TinyData, fingerprint, tiny_data, tiny_model

CONFIG = TrainConfig(epochs=2, batch_size=16)


def test_it_learns() -> None:
    model, data = tiny_model(), tiny_data(320)
    before = evaluate(model, data.val)
    Trainer(model, data, replace(CONFIG, epochs=3)).run()
    after = evaluate(model, data.val)
    assert before.accuracy is not None
    assert after.accuracy is not None
    assert after.accuracy > 0.9 > before.accuracy


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    models = [tiny_model() for _ in range(3)]
    for model, seed in zip(models, (3, 3, 4), strict=True):
        torch.manual_seed(random.randrange(1 << 30))
        Trainer(model, tiny_data(), replace(CONFIG, seed=seed)).run()
    first, again, other = (fingerprint(model) for model in models)
    assert first == again != other


def test_caller_finds_modes_generators_and_settings_as_they_were() -> None:
    model = tiny_model()
    model.eval()
    model[3].train()
    teacher = tiny_model(seed=1)
    teacher_bits = fingerprint(teacher)
    modes = [module.training for module in (*model.modules(), *teacher.modules())]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = (random.getstate(), np.random.get_state()[2], torch.get_rng_state())
    settings = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic)
    Trainer(model, tiny_data(), replace(CONFIG, distill=0.5, channels_last=True), teacher=teacher).run()
    assert [module.training for module in (*model.modules(), *teacher.modules())] == modes
    assert fingerprint(teacher) == teacher_bits
    assert model[0].weight.is_contiguous()
    assert random.getstate() == before[0]
    assert np.random.get_state()[2] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic) == settings


def test_gradients_left_behind_do_not_matter() -> None:
    clean, dirty = tiny_model(), tiny_model()
    dirty(torch.randn(4, 3, 8, 8)).sum().backward()
    dirty.load_state_dict(clean.state_dict())
    for model in (clean, dirty):
        Trainer(model, tiny_data(), CONFIG).run()
    assert fingerprint(clean) == fingerprint(dirty)


def test_history_has_the_epochs_and_the_steps_asked_for() -> None:
    history = Trainer(tiny_model(), tiny_data(), replace(CONFIG, log_every=2, evaluate_every=2)).run().history
    assert [(entry["epoch"], entry["step"]) for entry in history] == [(1, 2), (1, 4), (1, 5), (2, 6), (2, 8), (2, 10)]
    assert ["val_accuracy" in entry for entry in history] == [False] * 5 + [True]
    assert all(math.isfinite(entry["loss"]) for entry in history)


def test_max_steps_ends_the_schedule_too() -> None:
    result = Trainer(tiny_model(), tiny_data(), replace(CONFIG, epochs=9, max_steps=7)).run()
    assert result.steps == 7
    assert result.history[-1]["lr"] < 0.1 * CONFIG.lr


def test_zero_epochs_change_nothing() -> None:
    model = tiny_model()
    bits = fingerprint(model)
    assert Trainer(model, tiny_data(), TrainConfig(epochs=0)).run().steps == 0
    assert fingerprint(model) == bits


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    assert Trainer(tiny_model(), tiny_data(10), CONFIG).run().steps == 2


class Poisoned(RandomSplit):
    """One image of one epoch's pass is NaN: the one that comes at a given step."""

    def __init__(self, count: int, at: int) -> None:
        super().__init__(count)
        self.at = at

    def batches(self, batch_size: int, **options: Any) -> Any:
        for index, (inputs, targets) in enumerate(super().batches(batch_size, **options)):
            yield (inputs * math.nan if index == self.at else inputs), targets


def test_nan_loss_names_the_step_and_keeps_the_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    data = TinyData(Poisoned(80, at=3), RandomSplit(40))
    with pytest.raises(TrainingError, match=r"nan at step 4; the last good state is kept in .*c.safetensors"):
        Trainer(tiny_model(), data, replace(CONFIG, checkpoint_seconds=0.0), checkpoint=path).run()
    tensors, _ = load_safetensors(path)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values() if tensor.is_floating_point())


def test_weights_that_become_nan_are_not_saved(tmp_path: Path) -> None:
    class Poison(Hooks):
        def after_step(self, step: int, total_steps: int) -> None:
            if step == 6:
                with torch.no_grad():
                    model[0].weight[0, 0, 0, 0] = math.nan

    model, path = tiny_model(), tmp_path / "c.safetensors"
    with pytest.raises(TrainingError, match=r"0\.weight is no longer finite after step 7"):
        Trainer(model, tiny_data(), replace(CONFIG, checkpoint_seconds=0.0), hooks=Poison(), checkpoint=path).run()
    assert torch.isfinite(load_safetensors(path)[0]["state/model/0.weight"]).all()


def test_error_without_a_checkpoint_speaks_of_none() -> None:
    with pytest.raises(TrainingError) as caught:
        Trainer(tiny_model(), TinyData(Poisoned(80, at=0), RandomSplit(40)), CONFIG).run()
    assert "kept" not in str(caught.value)


class Recorder(Hooks):
    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.scale = nn.Parameter(torch.ones(1))
        self.logit = nn.Parameter(torch.zeros(1))
        self.adam = torch.optim.Adam([self.logit], lr=0.1)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.scale], "lr": 1.0}]

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"logit": self.adam}

    def penalty(self) -> Tensor:
        return self.logit.sum() + (self.scale - 3.0).square().sum()

    def before_step(self, step: int, total_steps: int) -> None:
        self.calls.append(("before", step, total_steps))

    def after_step(self, step: int, total_steps: int) -> None:
        self.calls.append(("after", step, total_steps))

    def log(self) -> dict[str, Any]:
        return {"logit": self.logit.item()}


def test_hooks_are_called_in_order_and_their_parameters_trained() -> None:
    hooks = Recorder()
    history = Trainer(tiny_model(), tiny_data(), CONFIG, hooks=hooks).run().history
    assert hooks.calls == [(name, step, 10) for step in range(10) for name in ("before", "after")]
    assert hooks.logit.item() == pytest.approx(-1.0, rel=1e-3)  # ten Adam steps of 0.1 against a slope of 1
    assert hooks.scale.item() != 1.0
    assert history[-1]["logit"] == hooks.logit.item()


def test_parameters_of_hooks_leave_the_models_groups() -> None:
    class Own(Hooks):
        def __init__(self, weight: nn.Parameter) -> None:
            self.frozen = torch.optim.SGD([weight], lr=0.0)

        def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
            return {"frozen": self.frozen}

    model = tiny_model()
    before = model[0].weight.detach().clone()
    Trainer(model, tiny_data(), CONFIG, hooks=Own(model[0].weight)).run()
    assert torch.equal(model[0].weight, before)


def test_groups_given_are_all_that_is_trained() -> None:
    model = tiny_model()
    before = model[0].weight.detach().clone()
    Trainer(model, tiny_data(), CONFIG, param_groups=[{"params": list(model[6].parameters())}]).run()
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None


def test_own_loss_sees_raw_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = tiny_model()

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"aux": inputs, "out": self.body(inputs)}

    def loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        assert set(outputs) == {"aux", "out"}
        return nn.functional.cross_entropy(outputs["out"], targets)

    own, default = Two(), Two()
    Trainer(own, tiny_data(), CONFIG, loss_fn=loss).run()
    Trainer(default, tiny_data(), CONFIG).run()
    assert fingerprint(own) == fingerprint(default)


def test_distillation_pulls_towards_the_teacher() -> None:
    teacher, data = tiny_model(seed=7), tiny_data(320)
    inputs = data.val.inputs
    distances = []
    for weight in (0.0, 1.0):
        student = tiny_model(dropout=0.0)
        Trainer(student, data, replace(CONFIG, epochs=4, distill=weight), teacher=teacher.eval()).run()
        with torch.no_grad():
            gap = student.eval()(inputs).log_softmax(1) - teacher.eval()(inputs).log_softmax(1)
        distances.append(gap.abs().mean().item())
    assert distances[1] < 0.5 * distances[0]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="no teacher"):
        Trainer(tiny_model(), tiny_data(), replace(CONFIG, distill=0.5))
    model = tiny_model()
    with pytest.raises(UsageError, match="shares modules"):
        Trainer(model, tiny_data(), replace(CONFIG, distill=0.5), teacher=nn.Sequential(model, nn.ReLU()))
    with pytest.raises(DataError, match="empty"):
        Trainer(tiny_model(), tiny_data(0), CONFIG)
    with pytest.raises(TrainingError, match="nothing to train"):
        Trainer(tiny_model().requires_grad_(False), tiny_data(), CONFIG)
    with pytest.raises(DataError, match="2 outputs"):
        Trainer(tiny_model(classes=2), tiny_data(), CONFIG).run()
    with pytest.raises(TrainingError, match="different shapes"):
        Trainer(tiny_model(), tiny_data(), replace(CONFIG, distill=0.5), teacher=tiny_model(classes=7)).run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"distill": 1.5},
        {"temperature": 0},
        {"grad_clip": -1.0},
        {"optimizer": "lion"},
        {"max_steps": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"^{next(iter(wrong))} must be"):
        TrainConfig(**{"epochs": 1, **wrong})


def test_split_that_ends_early_is_gone_through_again() -> None:
    class Short(RandomSplit):
        def batches(self, batch_size: int, **options: Any) -> Any:
            yield from list(super().batches(batch_size, **options))[:2]

    class Empty(RandomSplit):
        def batches(self, batch_size: int, **options: Any) -> Any:
            return iter(())

    assert Trainer(tiny_model(), TinyData(Short(80), RandomSplit(8)), CONFIG).run().steps == 10
    with pytest.raises(DataError, match="no batch"):
        Trainer(tiny_model(), TinyData(Empty(80), RandomSplit(8)), CONFIG).run()


def test_generators_go_back_to_where_they_were() -> None:
    before = rng_state()
    Trainer(tiny_model(), tiny_data(), CONFIG).run()
    after = rng_state()
    assert after["python"] == before["python"]
    assert torch.equal(after["numpy"][1], before["numpy"][1])


def test_inputs_that_want_gradients_get_none() -> None:
    x = torch.randn(8, 3, 8, 8, requires_grad=True)
    for given in (x, x * 1):  # one with a history, too
        copy = copied_to_device({"x": (given,)}, torch.device("cpu"))["x"][0]
        assert copy.requires_grad
        assert copy.is_leaf
        copy.sum().backward()
        assert x.grad is None
