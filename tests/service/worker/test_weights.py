"""Pretrained weights are fetched before the job that wants them, once, and only by names of the program's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.fetching import main
from compressor.service.worker.weights import Weights

Config = Callable[..., WorkerConfig]
FETCH = "import sys, os; open(os.environ['TORCH_HOME'] + '/' + sys.argv[1], 'w').close(); print('said'); sys.exit({})"


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ({"model": "resnet50"}, "resnet50"),
        (
            {"model": "timm:vit_tiny_patch16_224.augreg_in21k", "weights": "default"},
            "timm:vit_tiny_patch16_224.augreg_in21k",
        ),
        ({"model": "resnet50", "weights": "none"}, None),
        ({"model": "resnet50", "weights": "uploads/01ab.safetensors"}, None),
        ({"model": "my.package:make"}, None),
        ({"model": "hf:bert"}, None),
        ({"model": "../etc"}, None),
        ({"budgets": {"flops": "50%"}}, None),
    ],
)
def test_what_is_fetched(config: Config, recipe: dict[str, Any], wanted: str | None) -> None:
    assert Weights(config()).wanted(recipe) == wanted


def test_they_are_fetched_once_and_a_failure_is_tried_again_later(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {**os.environ, "TORCH_HOME": str(tmp_path), "SECRET": "x"}
    works = Weights(config(), (sys.executable, "-c", FETCH.format(0)))
    assert works.fetch("resnet50", said, lambda: True) is None
    assert (tmp_path / "resnet50").exists()
    assert works.wanted({"model": "resnet50"}) is None
    fails = Weights(config(), (sys.executable, "-c", FETCH.format(1)))
    assert fails.fetch("resnet18", said, lambda: True) == "said"
    assert fails.wanted({"model": "resnet18"}) is None
    monkeypatch.setattr("compressor.service.worker.weights._AGAIN_SECONDS", -1.0)
    fails.fetch("resnet18", said, lambda: True)
    assert fails.wanted({"model": "resnet18"}) == "resnet18"


def test_it_is_given_up_when_the_job_is(config: Config) -> None:
    sleeps = Weights(config(), (sys.executable, "-c", "import time; time.sleep(60)"))
    asked: list[bool] = []

    def go_on() -> bool:
        asked.append(True)
        return len(asked) < 3

    assert sleeps.fetch("resnet50", os.environ, go_on) == "it was given up"
    assert len(asked) == 3


def test_without_weights_to_be_had_there_is_nothing_to_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("resnet20_cifar") == 0
    assert main("no_such_model") == 2
    assert "no_such_model" in capsys.readouterr().out
