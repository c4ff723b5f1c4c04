"""Models by name: sources, weights, determinism, descriptions that rebuild, and errors that help."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from compressor.errors import CompressorError, MissingDependencyError, UnsupportedModelError, UsageError, WeightsError
from compressor.models import LoadedModel, list_models, load_model, rebuild
from compressor.models.network import unreachable_reason


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test is offline and starts with an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    for module in ("torchvision", "timm"):
        monkeypatch.setattr(f"compressor.models.sources.{module}.unreachable_reason", lambda url: "test is offline")


def structure(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


def assert_rebuilds(loaded: LoadedModel) -> None:
    again = rebuild(json.loads(json.dumps(loaded.describe())))
    assert structure(again) == structure(loaded.model)
    again.load_state_dict(loaded.model.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(loaded.example_inputs), loaded.model(loaded.example_inputs))


@pytest.mark.parametrize(
    ("spec", "settings", "inputs", "outputs"),
    [
        ("squeezenet1_1", {}, (3, 224, 224), 1000),
        ("resnet18", {"num_classes": 7, "in_channels": 1}, (1, 224, 224), 7),
        ("mnasnet0_5", {"example_shape": (4, 64, 64)}, (4, 64, 64), 1000),
        ("resnet20_cifar", {}, (3, 32, 32), 10),
        ("resnet20_cifar", {"num_classes": 3, "example_shape": (1, 8, 8)}, (1, 8, 8), 3),
        ("timm:resnet10t", {"num_classes": 5, "in_channels": 2}, (2, 176, 176), 5),
        ("timm:vit_tiny_patch16_224", {"example_shape": (3, 64, 64)}, (3, 64, 64), 1000),
    ],
)
def test_build_and_rebuild(spec: str, settings: dict[str, Any], inputs: tuple[int, ...], outputs: int) -> None:
    loaded = load_model(spec, weights="none", **settings)
    assert loaded.example_inputs.shape == (1, *inputs)
    assert not loaded.model.training
    assert loaded.model(loaded.example_inputs).shape == (1, outputs)
    assert_rebuilds(loaded)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("inception_v3", (3, 299, 299)),
        ("efficientnet_b1", (3, 240, 240)),
        ("r3d_18", (3, 16, 112, 112)),
        ("lraspp_mobilenet_v3_large", (3, 224, 224)),
        ("ssdlite320_mobilenet_v3_large", (3, 320, 320)),
    ],
)
def test_input_shapes_come_from_the_weights(spec: str, shape: tuple[int, ...]) -> None:
    loaded = load_model(spec, weights="none")
    assert loaded.example_inputs.shape == (1, *shape)
    assert loaded.weights.pretrained is False
    assert loaded.weights.warning is None


def test_auxiliary_heads_are_left_out() -> None:
    names = [name for name, _ in load_model("inception_v3", weights="none").model.named_modules()]
    assert not [name for name in names if name.startswith("AuxLogits.")]


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    one, two, three = (load_model("resnet20_cifar", weights="none", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.model.conv1.weight, two.model.conv1.weight)  # type: ignore[union-attr,arg-type]
    assert torch.equal(one.example_inputs, two.example_inputs)
    assert not torch.equal(one.model.conv1.weight, three.model.conv1.weight)  # type: ignore[union-attr,arg-type]


def test_offline_default_weights_are_random_with_a_loud_warning() -> None:
    for spec in ("resnet18", "resnet20_cifar", "timm:resnet10t"):
        weights = load_model(spec).weights
        assert not weights.pretrained
        assert weights.warning is not None
        assert "RANDOM" in weights.warning
        json.dumps(weights.to_json())


def test_an_unreachable_server_is_found_out() -> None:
    assert "refused" in str(unreachable_reason("http://127.0.0.1:9/weights.pth", seconds=2))
    assert unreachable_reason("not a url")


def test_a_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr("compressor.models.network._probe", lambda url, seconds: str(release.wait(30)))
    assert unreachable_reason("http://hangs.invalid", seconds=0.01) == "no answer within 0.01 s"
    release.set()


def cache_torchvision_weights(name: str, model: nn.Module) -> None:
    """Put a state dict where torch's hub keeps downloads."""
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), target)


def test_default_weights_from_the_cache() -> None:
    published = torchvision.models.resnet18()
    cache_torchvision_weights("resnet18", published)
    loaded = load_model("resnet18")
    assert loaded.weights.pretrained
    assert "IMAGENET1K_V1" in loaded.weights.origin
    assert torch.equal(loaded.model.conv1.weight, published.conv1.weight)  # type: ignore[union-attr,arg-type]


def test_a_head_of_another_size_stays_random_and_is_reported() -> None:
    published = torchvision.models.resnet18()
    cache_torchvision_weights("resnet18", published)
    loaded = load_model("resnet18", num_classes=5, in_channels=1)
    assert set(loaded.weights.reset) == {"conv1.weight", "fc.weight", "fc.bias"}
    assert "fc.weight" in (loaded.weights.warning or "")
    assert torch.equal(loaded.model.layer1[0].conv1.weight, published.layer1[0].conv1.weight)  # type: ignore[union-attr,index,arg-type]


def test_published_files_with_old_names_and_auxiliary_heads_load() -> None:
    densenet = torchvision.models.densenet121()
    url = torchvision.models.get_model_weights("densenet121").DEFAULT.url
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    target.parent.mkdir(parents=True, exist_ok=True)
    old = {
        (k.replace("norm1", "norm.1").replace("conv1", "conv.1").replace("norm2", "norm.2").replace("conv2", "conv.2"))
        if "denselayer" in k
        else k: v
        for k, v in densenet.state_dict().items()
    }
    torch.save(old, target)
    assert load_model("densenet121").weights.pretrained

    googlenet = torchvision.models.googlenet(init_weights=False)
    cache_torchvision_weights("googlenet", googlenet)
    loaded = load_model("googlenet")
    assert loaded.model.transform_input is True  # type: ignore[comparison-overlap]
    assert any(key.startswith("aux1.") for key in loaded.weights.ignored)
    assert_rebuilds(loaded)


def test_versioned_modules_load_from_files_without_versions(tmp_path: Path) -> None:
    model = torchvision.models.mnasnet0_5(num_classes=3)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model("mnasnet0_5", weights=str(tmp_path / "w.safetensors"), num_classes=3)
    assert loaded.weights.pretrained
    assert loaded.weights.origin == "file w.safetensors"


def test_files_that_do_not_fit_name_the_keys(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="1 unexpected"):
        load_model("resnet20_cifar", weights=str(tmp_path / "w.safetensors"))
    save_file(
        load_model("resnet20_cifar", weights="none", num_classes=7).model.state_dict(), tmp_path / "h.safetensors"
    )
    with pytest.raises(WeightsError, match="--num-classes 7"):
        load_model("resnet20_cifar", weights=str(tmp_path / "h.safetensors"))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("resnet5", "resnet50"),
        ("resnet20cifar", "resnet20_cifar"),
        ("timm:resnt18", "timm:resnet18"),
        ("no.such.module:make", "no"),
        ("torch.nn:Linea", "Linear"),
        ("some/where", "folder"),
        ("", "Unknown model"),
    ],
)
def test_unknown_models(spec: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        load_model(spec, weights="none")
    assert "\n" not in str(caught.value)


def test_detectors_take_three_channels_only() -> None:
    with pytest.raises(UsageError, match="3 channels"):
        load_model("ssdlite320_mobilenet_v3_large", weights="none", in_channels=1)


def test_timm_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return real(name, *args, **kwargs)

    real = __import__
    monkeypatch.setattr("builtins.__import__", fail)
    with pytest.raises(MissingDependencyError, match=r"compressor\[timm\]"):
        load_model("timm:resnet18", weights="none")


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    input_shape = (2, 5, 5)
    def __init__(self, num_classes=4):
        super().__init__()
        self.head = nn.Linear(50, num_classes)
    def forward(self, x):
        return self.head(x.flatten(1))

def broken(): raise ValueError("no such file")
def wrong(): return 3
"""


@pytest.fixture
def factory_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "factory_for_test.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    return "factory_for_test"


def test_factories(factory_module: str) -> None:
    loaded = load_model(f"{factory_module}:Net", num_classes=9, in_channels=2)
    assert loaded.example_inputs.shape == (1, 2, 5, 5)
    assert loaded.model(loaded.example_inputs).shape == (1, 9)
    assert loaded.kwargs == {"num_classes": 9}
    assert loaded.weights.origin == "the factory"
    assert_rebuilds(loaded)


def test_factories_that_fail(factory_module: str) -> None:
    with pytest.raises(UnsupportedModelError, match="no such file"):
        load_model(f"{factory_module}:broken")
    with pytest.raises(UsageError, match="returned a int"):
        load_model(f"{factory_module}:wrong")


def test_list_models() -> None:
    assert {"resnet20_cifar", "resnet50", "fcn_resnet50"} <= set(list_models())
    assert not [name for name in list_models() if name.startswith("quantized")]
    assert list_models("resnet*_cifar") == [f"resnet{depth}_cifar" for depth in (110, 20, 32, 44, 56)]
    assert "convnext_tiny" in list_models("convnext")
    assert "timm:resnet18" in list_models("timm:resnet*")
    assert list_models("nothing-like-this") == []


def test_rebuild_wants_a_whole_description() -> None:
    with pytest.raises(CompressorError, match="source"):
        rebuild({"spec": "resnet18"})
