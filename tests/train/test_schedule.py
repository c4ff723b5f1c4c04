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
    ],
)
def test_bad_schedules_are_refused(told: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        TrainConfig(epochs=1, **told)


def test_checkpoints_of_before_know_nothing_of_schedules() -> None:
    assert not {"schedule", "milestones", "decay"} & set(TrainConfig(epochs=1).fingerprint())
    steps = TrainConfig(epochs=1, schedule="steps", milestones=[0.5])  # type: ignore[arg-type]
    assert steps.fingerprint()["milestones"] == (0.5,)
