"""Saved folders as models: their own weights, their own example input, and the class count they were saved with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.architecture.architecture import Architecture
from compressor.errors import UsageError
from compressor.models import LoadedModel, artifact, load_model, rebuild
from compressor.report import Report


@pytest.fixture
def original() -> LoadedModel:
    return load_model("resnet20_cifar", weights="none", num_classes=4, example_shape=(1, 12, 12), seed=3)


def save(folder: Path, loaded: LoadedModel, *, pretrained: bool = True) -> str:
    shapes = {name: list(value.shape) for name, value in loaded.model.state_dict().items()}
    architecture = Architecture(artifact.class_name(loaded.model), shapes)
    report = Report("resnet20_cifar", pretrained=pretrained)
    description = loaded.describe()
    artifact.save(
        folder, loaded.model, architecture, report, description=description, example_inputs=loaded.example_inputs
    )
    return str(folder)


def test_weights_and_example_come_from_the_folder(tmp_path: Path, original: LoadedModel) -> None:
    loaded = load_model(save(tmp_path / "out", original))
    assert loaded.weights.pretrained
    assert loaded.weights.origin == "the saved folder"
    assert loaded.example_inputs.shape == (1, 1, 12, 12)
    for model in (loaded.model, rebuild(loaded.describe())):
        with torch.inference_mode():
            assert torch.equal(model(original.example_inputs), original.model(original.example_inputs))


def test_random_weights_stay_known_as_random(tmp_path: Path, original: LoadedModel) -> None:
    assert not load_model(save(tmp_path / "out", original, pretrained=False)).weights.pretrained


def test_another_input_shape(tmp_path: Path, original: LoadedModel) -> None:
    folder = save(tmp_path / "out", original)
    assert load_model(folder, example_shape=(1, 20, 20)).example_inputs.shape == (1, 1, 20, 20)


def test_what_a_folder_cannot_be(tmp_path: Path, original: LoadedModel) -> None:
    folder = save(tmp_path / "out", original)
    with pytest.raises(UsageError, match="fixed head"):
        load_model(folder, num_classes=9)
    with pytest.raises(UsageError, match="own weights"):
        load_model(folder, weights="none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"architecture\.json"):
        load_model(str(tmp_path / "empty"))
