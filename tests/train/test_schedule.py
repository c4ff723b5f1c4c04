"""The step schedule: where it falls, that the loop follows it, and that settings of before have their fingerprint."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.errors import UsageError
from compressor.train import TrainConfig, Trainer
from compressor.train.schedule import steps_with_warmup
from tests.train.tiny import tiny_data, tiny_model


def test_steps_fall_at_their_milestones() -> None:
    factors = [steps_with_warmup(step, 10, (0.6, 0.9), 0.2) for step in range(10)]
    assert factors == pytest.approx([1.0] * 6 + [0.2] * 3 + [0.04])
    warm = [steps_with_warmup(step, 10, (0.6,), 0.2, 4) for step in range(10)]
    assert warm == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.2, 0.2, 0.2, 0.2])


def test_the_loop_follows() -> None:
    config = TrainConfig(epochs=2, batch_size=16, lr=0.1, schedule="steps", milestones=(0.6,), decay=0.2, log_every=1)
    history = Trainer(tiny_model(), tiny_data(), config).run().history
    assert [entry["lr"] for entry in history] == pytest.approx([0.1] * 6 + [0.02] * 4)


@pytest.mark.parametrize("shape", [{}, {"schedule": "steps", "milestones": (0.6,), "decay": 0.2}])
@pytest.mark.parametrize("warmup", [0.0, 1.5])
def test_two_runs_that_share_a_schedule_follow_that_of_one(shape: dict[str, Any], warmup: float) -> None:
    def rates(epochs: int, **more: int) -> list[float]:
        config = TrainConfig(epochs=epochs, batch_size=16, lr=0.1, warmup_epochs=warmup, log_every=1, **shape, **more)
        return [entry["lr"] for entry in Trainer(tiny_model(), tiny_data(), config).run().history]

    assert rates(1, steps_after=10) + rates(2, steps_before=5) == rates(3)
    assert len(rates(3)) == 15


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"schedule": "linear"}, "schedule"),
        ({"schedule": "steps"}, "milestones"),
        ({"milestones": (0.5,)}, "steps"),
        ({"schedule": "steps", "milestones": (0.5, 0.5)}, "rise"),
        ({"schedule": "steps", "milestones": (0.0,)}, "milestones"),
        ({"schedule": "steps", "milestones": (1.0,)}, "milestones"),
        ({"schedule": "steps", "milestones": ("x",)}, "milestones"),
        ({"schedule": "steps", "milestones": "0.5"}, "milestones"),
        ({"schedule": "steps", "milestones": 0.5}, "milestones"),
        ({"schedule": "steps", "milestones": (0.5,), "decay": 0.0}, "decay"),
        ({"schedule": "steps", "milestones": (0.5,), "decay": 2.0}, "decay"),
        ({"schedule": "steps", "milestones": (0.5,), "final_lr_fraction": 0.1}, "final_lr_fraction"),
        ({"steps_before": -1}, "steps_before"),
        ({"steps_after": 1.5}, "steps_after"),
    ],
)
def test_bad_schedules_are_refused(told: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        TrainConfig(epochs=1, **told)


def test_checkpoints_of_before_know_nothing_of_schedules() -> None:
    since = {"schedule", "milestones", "decay", "steps_before", "steps_after"}
    assert not since & set(TrainConfig(epochs=1).fingerprint())
    steps = TrainConfig(epochs=1, schedule="steps", milestones=[0.5])  # type: ignore[arg-type]
    assert steps.fingerprint()["milestones"] == (0.5,)
