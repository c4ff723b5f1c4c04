from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.errors import CompressorError, UnsupportedModelError, UsageError, WeightsError
from compressor.models import artifact
from compressor.report import Report
from tests.models.artifact_models import Net, Other

KEPT = [0, 2, 3, 6, 7]
DESCRIPTION = {
    "spec": "tests.models.artifact_models:make_net",
    "source": "factory",
    "kwargs": {},
    "input_shape": [3, 8, 8],
}
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def narrow_architecture() -> Architecture:
    """Keeps five of eight channels everywhere."""
    indices: dict[str, dict[int, list[int]]] = {
        name: {0: KEPT}
        for name in (
            "stem.weight", "stem.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
            "one.bias", "two.bias", "scale",
        )
    }  # fmt: skip
    indices["one.weight"] = {0: KEPT, 1: KEPT}
    indices["head.weight"] = {1: KEPT}
    net = Net()
    return Architecture.of(
        model_class="tests.models.artifact_models.Net",
        shapes={name: list(v.shape) for name, v in (*net.named_parameters(), *net.named_buffers())},
        indices=indices,
        attributes={
            "stem": {"out_channels": 5},
            "norm": {"num_features": 5},
            "one": {"in_features": 5, "out_features": 5},
            "two": {"in_features": 5, "out_features": 5},
            "head": {"in_features": 5},
        },
        aliases={"one.weight": ["one.weight", "two.weight"]},
    )


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(1)
    model = narrow_architecture().apply_(Net())
    with torch.no_grad():
        for value in (*model.parameters(), model.norm.running_mean):
            value.normal_()
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path, trained: nn.Module) -> Path:
    out = tmp_path / "out"
    artifact.save(out, trained, narrow_architecture(), Report("net"), description=DESCRIPTION, example_inputs=IMAGE)
    return out


def same(first: nn.Module, second: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(first(IMAGE), second(IMAGE))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / artifact.ARCHITECTURE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_folder_of_the_contract(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "architecture.json",
        "model.safetensors",
        "report.html",
        "report.json",
    ]
    assert [file.path for file in artifact.load_report(folder).files] == ["model.safetensors", "architecture.json"]
    assert "<!doctype html>" in (folder / "report.html").read_text()


def test_comes_back_bit_for_bit_without_the_original(folder: Path, trained: nn.Module) -> None:
    loaded = artifact.load(folder, trust_factories=("tests.models.artifact_models",))
    assert type(loaded) is type(trained)
    assert not loaded.training
    assert same(loaded, trained)
    assert loaded.stem.out_channels == 5


def test_comes_back_into_a_model_of_the_user(folder: Path, trained: nn.Module) -> None:
    edit(folder, description=None)
    original = Net()
    assert artifact.load(folder, model=original) is original
    assert same(original, trained)
    with pytest.raises(
        UsageError, match=r"does not say how to build tests.models.artifact_models.Net; pass a fresh original"
    ):
        artifact.load(folder, trust_factories=("tests.models.artifact_models",))


def test_tied_weights_are_stored_once_and_stay_tied(folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert ("one.weight" in names) != ("two.weight" in names)
    loaded = artifact.load(folder, trust_factories=("tests.models.artifact_models",))
    assert loaded.one.weight is loaded.two.weight


def test_overlapping_views_and_empty_tensors_are_kept_apart() -> None:
    model = nn.Module()
    base = torch.arange(6.0)
    model.register_buffer("a", base)
    model.register_buffer("b", base[:3])
    model.register_buffer("c", base)
    model.register_buffer("d", torch.zeros(0))
    model.register_buffer("e", torch.zeros(0))
    tensors, tied = artifact.unshared(model)
    assert tied == {"c": "a"}
    assert set(tensors) == {"a", "b", "d", "e"}


def test_precision_is_kept(tmp_path: Path, trained: nn.Module) -> None:
    trained.half()
    artifact.save(tmp_path, trained, narrow_architecture(), Report("net"), description=DESCRIPTION)
    loaded = artifact.load(tmp_path, trust_factories=("tests.models.artifact_models",))
    assert loaded.one.weight.dtype == torch.float16
    assert loaded.one.weight is loaded.two.weight
    assert loaded.norm.num_batches_tracked.dtype == torch.int64


def test_compressing_a_saved_folder_again_does_not_depend_on_it(folder: Path, tmp_path: Path) -> None:
    model = artifact.load(folder, trust_factories=("tests.models.artifact_models",))
    again = Architecture.of(
        model_class="tests.models.artifact_models.Net",
        shapes={"head.weight": [4, 5], "head.bias": [4]},
        indices={"head.weight": {0: [1, 3]}, "head.bias": {0: [1, 3]}},
        attributes={"head": {"out_features": 2}},
    )
    smaller = again.apply_(artifact.load(folder, trust_factories=("tests.models.artifact_models",)))
    second = tmp_path / "second"
    description = {"spec": str(folder), "source": "folder", "kwargs": {}, "input_shape": [3, 8, 8]}
    artifact.save(second, smaller, again, Report("net"), description=description)
    for path in folder.iterdir():
        path.unlink()
    with torch.no_grad():
        torch.testing.assert_close(
            artifact.load(second, trust_factories=("tests.models.artifact_models",))(IMAGE), model(IMAGE)[:, [1, 3]]
        )
    assert artifact.load_architecture(second).kept("head.weight", 0) == [1, 3]


def test_saving_again_replaces(folder: Path) -> None:
    torch.manual_seed(2)
    other = narrow_architecture().apply_(Net()).eval()
    artifact.save(folder, other, narrow_architecture(), Report("net"), description=DESCRIPTION)
    assert same(artifact.load(folder, trust_factories=("tests.models.artifact_models",)), other)
    assert len(list(folder.iterdir())) == 4


def test_example_inputs(folder: Path) -> None:
    found = artifact.example_inputs(folder, batch=3).tensors
    assert found is not None
    assert found[0].shape == (3, 3, 8, 8)
    edit(folder, inputs=None)
    assert artifact.example_inputs(folder) is None


class TestErrors:
    def test_wrong_model(self, folder: Path) -> None:
        with pytest.raises(
            UsageError, match=r"holds a tests\.models\.artifact_models\.Net, the model passed is a .*\.Other"
        ):
            artifact.load(folder, model=Other())

    def test_right_class_of_another_size(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="shape"):
            artifact.load(folder, model=Net(width=9))

    @pytest.mark.parametrize("name", ["architecture.json", "model.safetensors"])
    def test_missing_file(self, name: str, folder: Path) -> None:
        (folder / name).unlink()
        with pytest.raises(UsageError, match=f"has no {name}"):
            artifact.load(folder, trust_factories=("tests.models.artifact_models",))

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is no folder"):
            artifact.load(tmp_path / "nowhere")

    def test_one_flipped_bit(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="damaged"):
            artifact.load(folder, trust_factories=("tests.models.artifact_models",))

    def test_cut_off_files(self, folder: Path) -> None:
        for name in ("model.safetensors", "architecture.json"):
            path = folder / name
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
            with pytest.raises(UsageError, match="damaged") as caught:
                artifact.load(folder, trust_factories=("tests.models.artifact_models",))
            assert "\n" not in str(caught.value)
            path.write_bytes(data)

    def test_newer_and_foreign_files(self, folder: Path) -> None:
        edit(folder, schema_version=artifact.SCHEMA_VERSION + 1)
        with pytest.raises(UsageError, match="update compressor"):
            artifact.load(folder, trust_factories=("tests.models.artifact_models",))
        for text in ("[]", "{}", '{"schema_version": 1}'):
            (folder / "architecture.json").write_text(text)
            with pytest.raises(UsageError, match="not written by compress"):
                artifact.load(folder, trust_factories=("tests.models.artifact_models",))

    def test_weights_of_another_architecture(self, folder: Path, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Linear(2, 2))
        artifact.save_model(tmp_path / "b", model, narrow_architecture())
        wide = json.loads((tmp_path / "b" / "architecture.json").read_text())
        (folder / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
        edit(folder, weights=wide["weights"], tied={})
        with pytest.raises(WeightsError, match=r"missing \(stem\.weight.*unexpected \(0\.bias"):
            artifact.load(folder, trust_factories=("tests.models.artifact_models",))

    def test_original_that_can_no_longer_be_built(self, folder: Path) -> None:
        edit(folder, description={**DESCRIPTION, "spec": "tests.models.artifact_models:gone"})
        with pytest.raises(CompressorError, match="pass a fresh original"):
            artifact.load(folder, trust_factories=("tests.models.artifact_models",))

    def test_a_pickle_is_never_opened(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (print, ("this must never run",))

        data = pickle.dumps(Bomb())
        (folder / "model.safetensors").write_bytes(data)
        import hashlib

        edit(folder, weights={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        with pytest.raises(UsageError, match="safetensors"):
            artifact.load(folder, trust_factories=("tests.models.artifact_models",))
        assert "must never run" not in capfd.readouterr().out

    def test_state_that_is_no_tensor(self, tmp_path: Path) -> None:
        class Extra(nn.Module):
            def get_extra_state(self) -> dict[str, int]:
                return {"a": 1}

            def set_extra_state(self, state: object) -> None: ...

        with pytest.raises(UnsupportedModelError, match="_extra_state"):
            artifact.save_model(tmp_path, nn.Sequential(Extra()), narrow_architecture())
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, trained: nn.Module) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(CompressorError, match="Cannot write"):
            artifact.save(tmp_path / "file", trained, narrow_architecture(), Report("net"))
