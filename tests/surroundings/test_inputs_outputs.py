"""Several, optional and integer inputs; dictionaries, tuples and dataclasses as outputs; feature pyramids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.trim import TrimResult, trim_verified


def thinned(model: nn.Module, inputs: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> tuple[Graph, Any]:
    """Every second unit of every group removed, exactly."""
    graph = capture(model.eval(), inputs, example_kwargs=kwargs, **options)
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[1::2]] = False
    result: TrimResult = trim_verified(model, graph, units, inputs, kwargs)
    assert not result.refused
    assert result.check.error <= 1e-9
    return graph, result.model


@dataclass
class Output:
    logits: Tensor
    features: list[Tensor]
    name: str = "net"


class Many(nn.Module):
    """Reads an image, integer tokens and, if there is one, a mask. ``kind`` is what it returns."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.image = nn.Conv2d(3, 8, 3, padding=1)
        self.words = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, image: Tensor, words: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Any:
        features = self.image(image).relu()
        tokens = self.words(words)
        if mask is not None:
            tokens = tokens * mask[..., None]
        x = self.hidden(features.mean((2, 3)) + scale * tokens.mean(1)).relu()
        logits = self.head(x)
        match self.kind:
            case "dict":
                return {"logits": logits, "features": {"last": x}}
            case "tuple":
                return logits, (x,)
            case "dataclass":
                return Output(logits, [x])
        return logits


IMAGE, WORDS, MASK = torch.randn(1, 3, 6, 6), torch.tensor([[1, 2, 3, 10]]), torch.tensor([[1.0, 1.0, 0.0, 1.0]])


@pytest.mark.parametrize("inputs", [(IMAGE, WORDS), (IMAGE, WORDS, None), (IMAGE, WORDS, MASK)], ids=len)
def test_integer_and_optional_inputs(inputs: tuple[Any, ...]) -> None:
    _, small = thinned(Many("plain"), inputs)
    assert (small.image.out_channels, small.hidden.out_features, small.words.embedding_dim) == (4, 6, 4)
    _, small = thinned(Many("plain"), inputs[:2], {"scale": 2.0} if len(inputs) < 3 else {"mask": inputs[2]})
    assert small.hidden.out_features == 6


@pytest.mark.parametrize("kind", ["dict", "tuple", "dataclass"])
def test_what_a_network_returns_keeps_its_channels_wherever_it_lies(kind: str) -> None:
    _, small = thinned(Many(kind), (IMAGE, WORDS))
    assert small.image.out_channels == 4
    assert small.hidden.out_features == 12, "its result is an output, too"


def test_outputs_kept_for_a_feature_pyramid() -> None:
    model = torchvision.models.resnet18(num_classes=5)
    graph, small = thinned(model, torch.randn(1, 3, 64, 64), keep_outputs=("layer2", "layer4"))
    assert [b[-1].bn2.num_features for b in (small.layer2, small.layer3, small.layer4)] == [128, 128, 512]
    assert small.layer2[0].conv1.out_channels == 64
    assert "output of the network" in {fixed.reason for fixed in graph.fixed}
    _, small = thinned(model, torch.randn(1, 3, 64, 64), keep_outputs=("layer[24]",))
    assert small.layer2[0].conv1.out_channels == 64


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("fasterrcnn_mobilenet_v3_large_fpn", 96),
        ("ssdlite320_mobilenet_v3_large", 96),
        pytest.param("retinanet_resnet50_fpn", 96, marks=pytest.mark.slow),
        pytest.param("fcos_resnet50_fpn", 96, marks=pytest.mark.slow),
    ],
)
def test_backbones_of_detection_models(name: str, size: int) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None).backbone
    x = torch.randn(1, 3, size, size)
    _, small = thinned(model, x)
    assert [t.shape for t in small(x).values()] == [t.shape for t in model(x).values()]
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_features_only(name: str) -> None:
    torch.manual_seed(0)
    kwargs = {"img_size": 64} if name.startswith("vit") else {}
    model = timm.create_model(name, pretrained=False, features_only=True, **kwargs)
    x = torch.randn(1, 3, 64, 64)
    _, small = thinned(model, x)
    assert [t.shape for t in small(x)] == [t.shape for t in model.eval()(x)]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
