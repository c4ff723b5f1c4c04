"""The parts of training that can be looked at alone: outputs, losses, schedule, groups, state trees, progress."""

from __future__ import annotations

import io
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import TrainingError
from compressor.process.progress import BarProgress, LineProgress, make_progress
from compressor.train import TrainConfig, Trainer, evaluate
from compressor.train.layout import accepts_channels_last, channels_last, copied_to_device
from compressor.train.objectives.distill import distillation_loss
from compressor.train.objectives.outputs import primary_output
from compressor.train.optim import model_groups
from compressor.train.resume.tree import flatten, unflatten
from compressor.train.rng import derive_seed, isolated_rng, rng_state, seed_everything, set_rng_state
from compressor.train.schedule import cosine_with_warmup
from compressor.train.splits import call_model
from tests.train.tiny import fingerprint, tiny_data, tiny_model

LOGITS, OTHER = torch.ones(2, 3), torch.zeros(2, 5)
Named = namedtuple("Named", ["aux", "logits"])
Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Record:
    loss: Tensor | None
    logits: Tensor


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        (LOGITS, OTHER),
        [LOGITS],
        {"aux": OTHER, "out": LOGITS},
        {"aux": OTHER, "logits": LOGITS},
        {"features": LOGITS},
        Named(OTHER, LOGITS),
        Pair(LOGITS, OTHER),
        Record(None, LOGITS),
        ({"out": LOGITS}, OTHER),
        (None, LOGITS),
    ],
)
def test_primary_output(outputs: object) -> None:
    assert primary_output(outputs) is LOGITS


def test_primary_output_of_nothing() -> None:
    for outputs in (None, 3, {}, [None]):
        with pytest.raises(TrainingError, match="no tensor"):
            primary_output(outputs)


@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3, 5)])
def test_distillation_is_the_kl_divergence(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    loss = distillation_loss(student, teacher, 3.0)
    rows = [tensor.movedim(1, -1).reshape(-1, 4) / 3.0 for tensor in (student, teacher)]
    expected = 9.0 * nn.functional.kl_div(
        rows[0].log_softmax(1), rows[1].log_softmax(1), reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(loss, expected)
    assert distillation_loss(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-6)


def test_schedule_rises_then_falls() -> None:
    factors = [cosine_with_warmup(step, 100, 10, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0.1 < factors[-1] < 0.101
    assert [cosine_with_warmup(step, 1) for step in range(1)] == [1.0]
    assert cosine_with_warmup(3, 4, 4) == 1.0


def test_groups_without_decay_hold_what_has_fewer_than_two_axes() -> None:
    model = tiny_model()
    decayed, plain = model_groups(model, decay_norm_and_bias=False)
    assert plain["weight_decay"] == 0.0
    assert {p.ndim for p in plain["params"]} == {1}
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    model[6].weight.requires_grad_(False)
    (group,) = model_groups(model, without=[model[0].weight])
    assert [p.shape for p in group["params"]] == [(8,), (8,), (4,)]


def test_state_trees_come_back_equal() -> None:
    tree = {"a": [1, 2.5, None, True, "x"], 3: {"t": torch.arange(3)}, "pair": (1, [torch.ones(2)]), "empty": {}}
    tensors: dict[str, Tensor] = {}
    back = unflatten(flatten(tree, tensors, "s"), tensors)
    assert set(tensors) == {"s/3/t", "s/pair/1/0"}
    assert list(back) == list(tree)
    assert back["a"] == tree["a"]
    assert isinstance(back["pair"], tuple)
    assert torch.equal(back[3]["t"], torch.arange(3))
    with pytest.raises(TrainingError, match="s/x/0 is a set"):
        flatten({"x": [set()]}, {}, "s")
    with pytest.raises(TrainingError, match=r"key \(1, 2\)"):
        flatten({(1, 2): 0}, {}, "s")


def test_generator_states_come_back() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, float, float, float]:
        return random.gauss(0, 1), np.random.randn(), torch.rand(1).item(), np.random.rand()

    seed_everything(derive_seed(1, "x"))
    draw()  # leaves half a pair of normal numbers in two of the generators
    state = rng_state()
    first = draw()
    set_rng_state(state)
    assert draw() == first
    set_rng_state(state)
    with isolated_rng():
        draw()
        seed_everything(3)
    assert draw() == first
    assert derive_seed(1, "x") != derive_seed(2, "x") != derive_seed(2, "y")


def test_batches_of_any_structure_move() -> None:
    image = torch.ones(2, 3, 4, 4)
    moved = channels_last(copied_to_device({"x": [image, Pair(image, 3)]}, torch.device("cpu")))
    assert moved["x"][0].is_contiguous(memory_format=torch.channels_last)
    assert moved["x"][1].right == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_spreads_whatever_the_channels(channels: int) -> None:
    """One channel is laid out alike either way; its strides have to say which is meant."""
    images = torch.randn(2, channels, 6, 5)
    last = channels_last(images)
    assert torch.equal(last, images)
    spread = nn.Conv2d(channels, 4, 3)(last)
    assert spread.is_contiguous(memory_format=torch.channels_last)
    assert not spread.is_contiguous()
    assert channels_last(images[:0]).shape == (0, channels, 6, 5)


class Flat(nn.Module):
    """Takes the layout of its activations for granted, as much old code does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs).view(len(inputs), -1)


def test_layout_is_tried_without_a_trace() -> None:
    model, flat, images = tiny_model(), Flat(), torch.randn(4, 3, 8, 8)
    vectors = torch.randn(4, 3)
    bits, state = fingerprint(model), torch.get_rng_state()
    assert accepts_channels_last(model, images, call_model)
    assert not accepts_channels_last(flat, images, call_model)
    assert not accepts_channels_last(model, vectors, call_model)
    assert fingerprint(model) == bits
    assert fingerprint(flat)["body.1.running_mean"] == bytes(16)
    assert torch.equal(torch.get_rng_state(), state)


def test_model_that_takes_its_layout_for_granted_trains_and_evaluates() -> None:
    data = tiny_data()
    model = nn.Sequential(Flat(), nn.Linear(144, 4))
    assert Trainer(model, data, TrainConfig(epochs=1, batch_size=16)).run().steps == 5
    assert evaluate(model, data.val).count == 40


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = make_progress("fine-tuning", stream)
    assert isinstance(progress, LineProgress)
    progress = LineProgress("fine-tuning", stream, interval_s=0.0)
    progress.start(10, 2)
    for step in range(3, 11):
        progress.advance(step, loss=0.5)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "fine-tuning: 10 steps, going on after step 2"
    assert lines[1].startswith("fine-tuning: step 3/10, loss 0.5")
    assert lines[-1].startswith("fine-tuning: step 10/10")
    assert all("\r" not in line and "\x1b" not in line for line in lines)


def test_a_bar_where_there_is_one() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = make_progress("fine-tuning", stream)
    assert isinstance(progress, BarProgress)
    progress.start(4, 0)
    progress.advance(4, loss=0.25)
    progress.close()
    assert "fine-tuning" in stream.getvalue()
    assert "4/4" in stream.getvalue()
