"""A network is compiled where it runs as it is, and where that fails it runs as it is written."""

from __future__ import annotations

import functools
import logging
from typing import Any

import pytest
import torch
from torch import nn

from compressor.process.ranks import ALONE
from compressor.train import Hooks, TrainConfig, Trainer
from compressor.train.compiled import Compiled, runnable
from tests.train.tiny import tiny_data, tiny_model

CONFIG = TrainConfig(epochs=1, batch_size=16, compile=True)
compile_ = torch.compile


def test_training_compiled_is_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(compile_, backend=backend))
    plain, compiled = tiny_model(dropout=0.0), tiny_model(dropout=0.0)
    Trainer(plain, tiny_data(), TrainConfig(epochs=1, batch_size=16)).run()
    Trainer(compiled, tiny_data(), CONFIG).run()
    assert len(seen) == 1, "compiled once"
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor)
    assert not any("_orig_mod" in name for name in compiled.state_dict())


def test_what_cannot_be_compiled_runs_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("there is no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(compile_, backend=backend))
    model = tiny_model()
    with caplog.at_level(logging.WARNING):
        assert Trainer(model, tiny_data(), CONFIG).run().steps == 5
    (said,) = [record.getMessage() for record in caplog.records if "compiled" in record.getMessage()]
    assert "there is no compiler here" in said


def test_masks_are_not_compiled() -> None:
    class Masked(Hooks):
        def forward(self, model: nn.Module, inputs: Any) -> Any:
            return model(inputs)

    model = tiny_model()
    assert runnable(model, ALONE, compiles=True, plain=Masked().plain) is model
    assert runnable(model, ALONE, compiles=False, plain=True) is model
    assert isinstance(runnable(model, ALONE, compiles=True, plain=Hooks().plain), Compiled)
