"""Training on a GPU: mixed precision by default, and the same bits after a stop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from compressor.errors import TrainingError
from compressor.train import Hooks, TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from tests.train.tiny import tiny_data, tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


class Crash(Hooks):
    def __init__(self, after: int) -> None:
        self.after = after

    def after_step(self, step: int, total_steps: int) -> None:
        if step == self.after:
            raise KeyboardInterrupt


def train(after: int, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
    model, teacher = tiny_model().cuda(), tiny_model(seed=3).cuda()
    config = TrainConfig(epochs=3, batch_size=8, distill=0.3, grad_clip=1.0, checkpoint_seconds=0.0)
    Trainer(model, tiny_data(), config, teacher=teacher, checkpoint=checkpoint, hooks=Crash(after)).run()
    return model.state_dict()


def test_stopped_and_resumed_to_the_same_bits(tmp_path: Path) -> None:
    alone, twice = train(-1), train(-1)
    with pytest.raises(KeyboardInterrupt):
        train(13, tmp_path / "c.safetensors")
    resumed = train(-1, tmp_path / "c.safetensors")
    for name, value in alone.items():
        assert torch.equal(twice[name], value), name
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_learns_in_mixed_precision(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: dtype is torch.bfloat16)
    model, data = tiny_model().cuda(), tiny_data(320)
    Trainer(model, data, TrainConfig(epochs=4, batch_size=16)).run()
    assert recalibrate_batchnorm(model, data.train) == 1
    found = evaluate(model, data.val)
    assert found.accuracy is not None
    assert found.accuracy > 0.9


def test_nan_is_found_late_but_named_right(tmp_path: Path) -> None:
    class Poison(Hooks):
        def penalty(self) -> torch.Tensor:
            self.step += 1
            return torch.full((), float("nan") if self.step == 9 else 0.0, device="cuda")

        step = 0

    with pytest.raises(TrainingError, match="at step 9"):
        Trainer(tiny_model().cuda(), tiny_data(800), TrainConfig(epochs=1, batch_size=8), hooks=Poison()).run()
