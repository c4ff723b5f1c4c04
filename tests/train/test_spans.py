"""A run in parts, each with a trainer of its own, is the run as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.train import Hooks, Span, TrainConfig, Trainer
from tests.train.tiny import fingerprint, tiny_data, tiny_model

STEPS = 15  # three epochs of five


def config(optimizer: str = "sgd") -> TrainConfig:
    return TrainConfig(epochs=3, batch_size=16, optimizer=optimizer, log_every=2, checkpoint_seconds=0.0)


class Seen(Hooks):
    """Which steps are done, of how many."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def before_step(self, step: int, total_steps: int) -> None:
        self.steps.append((step, total_steps))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("cut", [1, 5, 8, 14])
def test_two_parts_end_where_the_whole_does(optimizer: str, cut: int) -> None:
    whole, first = (tiny_model(dropout=0.0) for _ in range(2))
    expected = Trainer(whole, tiny_data(), config(optimizer)).run()
    seen = Seen()
    start = Trainer(first, tiny_data(), config(optimizer), hooks=seen, span=Span(0, cut))
    history = start.run().history
    second = tiny_model(seed=3, dropout=0.0)
    second.load_state_dict(first.state_dict())
    rest = Trainer(second, tiny_data(), config(optimizer), hooks=seen, span=Span(cut, None, start.optimizer_state()))
    result = rest.run()
    assert fingerprint(second) == fingerprint(whole)
    assert seen.steps == [(step, STEPS) for step in range(STEPS)]
    assert result.steps == expected.steps == STEPS
    assert [e["lr"] for e in [*history, *result.history] if e["step"] != cut] == [
        e["lr"] for e in expected.history if e["step"] != cut
    ]


def test_without_momenta_it_is_another_run() -> None:
    whole, cut = (tiny_model(dropout=0.0) for _ in range(2))
    Trainer(whole, tiny_data(), config()).run()
    for span in (Span(0, 8), Span(8)):
        Trainer(cut, tiny_data(), config(), span=span).run()
    assert fingerprint(cut) != fingerprint(whole)


@pytest.mark.parametrize("cut", [5, 7])
@pytest.mark.parametrize("stop", [7, 8, 11, 14])
def test_a_part_that_is_killed_goes_on(tmp_path: Path, stop: int, cut: int) -> None:
    class Crash(Hooks):
        def after_step(self, step: int, total_steps: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

    def part(hooks: Hooks | None, checkpoint: Path | None) -> dict[str, bytes]:
        model = tiny_model()
        start = Trainer(model, tiny_data(), config(), span=Span(0, cut))
        start.run()
        Trainer(
            model,
            tiny_data(),
            config(),
            span=Span(cut, None, start.optimizer_state()),
            checkpoint=checkpoint,
            hooks=hooks,
        ).run()
        return fingerprint(model)

    with pytest.raises(KeyboardInterrupt):
        part(Crash(), tmp_path / "c.safetensors")
    assert part(None, tmp_path / "c.safetensors") == part(None, None)


def test_the_checkpoint_of_another_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    Trainer(tiny_model(), tiny_data(), config(), checkpoint=path, span=Span(0, 7)).run()
    with pytest.raises(UsageError, match="span was"):
        Trainer(tiny_model(), tiny_data(), config(), checkpoint=path, span=Span(0, 8)).run()


def test_a_part_that_is_over_tells_no_progress(tmp_path: Path) -> None:
    told: list[str] = []

    class Told:
        def start(self, total_steps: int, done_steps: int) -> None:
            told.append(f"{done_steps} of {total_steps}")

        def advance(self, done_steps: int, **shown: float) -> None: ...

        def close(self) -> None:
            told.append("closed")

    for _ in range(2):
        Trainer(tiny_model(), tiny_data(), config(), checkpoint=tmp_path / "c", span=Span(0, 7), progress=Told()).run()
    assert told == ["0 of 15", "closed"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_layer_that_is_skipped_at_first_is_trained_once_it_is_used(optimizer: str) -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.calls = tiny_model(dropout=0.0), 0
            self.extra = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y: Tensor = self.body(x)
            return y + self.extra(y) if self.calls > 4 else y

    torch.manual_seed(0)
    model = Skips()
    before = model.extra.weight.detach().clone()
    Trainer(model, tiny_data(), config(optimizer)).run()
    assert not torch.equal(model.extra.weight, before)
