"""Where the resolution falls along a network, which layers lie between, and why nothing can be chosen elsewhere."""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.graph.pooling_choices import complete, find_stages, require_some
from compressor.graph.stages import Reduction, Stages, configuration, pooled_before, rank_of


def stages(model: nn.Module, *shape: int, **options: int) -> Stages:
    model.eval()
    graph = capture(model, torch.randn(1, *shape))
    return complete(find_stages(model, graph), **options)


def refused(model: nn.Module, *shape: int) -> str:
    model.eval()
    graph = capture(model, torch.randn(1, *shape))
    add_choices(model, graph, ["pooling"])
    assert not graph.choices
    with pytest.raises(UnsupportedModelError, match="cannot be chosen") as caught:
        require_some(graph)
    return str(caught.value)


def cifar(name: str) -> nn.Module:
    """A residual network of torchvision with the stem that it has for small images."""
    model = torchvision.models.get_model(name, weights=None, num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return model


def conv(*channels: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(*channels, kernel, stride, kernel // 2), nn.BatchNorm2d(channels[1]), nn.ReLU())


@pytest.mark.parametrize(
    ("layers", "pools", "count"), [(10, 2, 36), (9, 3, 56), (17, 3, 560), (16, 3, 455), (8, 3, 35), (4, 3, 1)]
)
def test_there_are_as_many_as_in_the_paper_and_in_its_order(layers: int, pools: int, count: int) -> None:
    found = [configuration(layers, pools, rank) for rank in range(math.comb(layers - 1, pools))]
    cuts = combinations(range(1, layers), pools)
    assert found == [tuple(b - a for a, b in zip((0, *c), (*c, layers), strict=True)) for c in cuts]
    assert len(found) == count
    assert [rank_of(each) for each in found] == list(range(count))


def test_resnet20_has_the_configurations_of_table_6() -> None:
    found = stages(resnet20_cifar(), 3, 32, 32)
    assert [found.configurations[i - 1] for i in (1, 24, 34, 36)] == [(1, 1, 8), (4, 3, 3), (7, 1, 2), (8, 1, 1)]
    assert found.default == 23
    assert found.layers[:2] == ("conv1", "layer1.0")
    assert len(found.layers) == 10
    assert found.sizes == ((32, 32), (16, 16), (8, 8))
    assert found.reductions[0] == Reduction(("layer2.0.conv1",), 4, (2, 2), (("layer2.0", "stride", 2),))
    assert pooled_before((7, 1, 2)) == [7, 8]


@pytest.mark.parametrize(
    ("name", "size", "count", "default"),
    [
        ("resnet18", 32, 56, (3, 2, 2, 2)),
        pytest.param("resnet50", 32, 560, (4, 4, 6, 3), marks=pytest.mark.slow),
    ],
)
def test_stems_for_small_images_are_a_layer(name: str, size: int, count: int, default: tuple[int, ...]) -> None:
    found = stages(cifar(name), 3, size, size)
    assert len(found.configurations) == count
    assert found.default is not None
    assert found.configurations[found.default] == default
    assert found.staying == ()


@pytest.mark.parametrize(
    ("name", "count", "default"), [("resnet18", 35, (2, 2, 2, 2)), ("resnet50", 455, (3, 4, 6, 3))]
)
def test_stems_that_reduce_stay(name: str, count: int, default: tuple[int, ...]) -> None:
    found = stages(torchvision.models.get_model(name, weights=None), 3, 224, 224)
    assert len(found.configurations) == count
    assert found.default is not None
    assert found.configurations[found.default] == default
    assert found.sizes == ((56, 56), (28, 28), (14, 14), (7, 7))
    assert found.staying == (
        "224x224 to 112x112 in conv1: the stem stays",
        "112x112 to 56x56 before layer1.0: the stem stays",
    )
    projections = {m for reduction in found.reductions for m in reduction.modules if "downsample" in m}
    assert projections == {f"layer{i}.0.downsample.0" for i in (2, 3, 4)}


def test_blocks_without_a_shortcut_are_no_smaller_than_those_with_one() -> None:
    found = stages(torchvision.models.mobilenet_v2(), 3, 64, 64)
    assert found.layers == tuple(f"features.{i}" for i in range(1, 19))
    assert [reduction.before for reduction in found.reductions] == [1, 3, 6, 13]


def test_convolutions_of_a_plain_network_are_layers_and_its_last_pool_stays() -> None:
    found = stages(torchvision.models.vgg11(), 3, 64, 64)
    assert found.layers == tuple(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18))
    assert [reduction.modules for reduction in found.reductions] == [(f"features.{i}",) for i in (2, 5, 10, 15)]
    assert len(found.configurations) == 35


def test_average_pools_in_shortcuts_go_with_their_block() -> None:
    timm = pytest.importorskip("timm")
    found = stages(timm.create_model("resnet18d"), 3, 64, 64)
    assert len(found.layers) == 8  # of the three convolutions of its stem none
    assert "layer2.0.downsample.0" in found.reductions[0].modules


def test_patches_are_layers_of_their_own() -> None:
    found = stages(torchvision.models.convnext_tiny(), 3, 64, 64)
    assert [reduction.modules for reduction in found.reductions] == [(f"features.{i}.1",) for i in (2, 4, 6)]
    assert len(found.layers) == 21


def test_one_dimension_and_rectangles() -> None:
    def block(a: int, b: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(a, b, 5, stride, 2), nn.ReLU())

    line = nn.Sequential(block(2, 4, 1), block(4, 8, 2), block(8, 8, 4), block(8, 8, 1), nn.AdaptiveAvgPool1d(1))
    found = stages(line, 2, 64)
    assert found.sizes == ((64,), (32,), (8,))
    assert [reduction.factor for reduction in found.reductions] == [(2,), (4,)]
    wide = nn.Sequential(conv(3, 4), nn.MaxPool2d((1, 2)), conv(4, 4), conv(4, 4), nn.AdaptiveAvgPool2d(1))
    found = stages(wide, 3, 16, 48)
    assert found.sizes == ((16, 48), (16, 24))
    assert found.configurations == ((1, 2), (2, 1))


def test_two_reductions_at_one_place_are_one() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 4), nn.MaxPool2d(2), conv(4, 4, stride=2), conv(4, 4), nn.Flatten())
    found = stages(model, 3, 32, 32)
    assert [(r.factor, r.before) for r in found.reductions] == [((4, 4), 2)]


def test_what_has_to_stay_divides_the_trunk() -> None:
    model = nn.Sequential(
        conv(3, 4), nn.Conv2d(4, 4, 3), conv(4, 4), conv(4, 4, stride=2), conv(4, 4), conv(4, 4), nn.Flatten()
    )
    found = stages(model, 3, 32, 32)
    assert found.layers == ("1", "2.0", "3.0", "4.0", "5.0")
    assert found.staying == ("32x32 to 30x30 in 1: the size falls from 32x32 to 30x30 without a stride",)


def test_of_many_some_are_taken_evenly_and_the_network_s_own() -> None:
    found = stages(torchvision.models.mobilenet_v2(), 3, 64, 64, most=100)
    assert len(found.configurations) == len(set(found.configurations)) == 100
    assert list(found.configurations) == sorted(found.configurations)
    assert (found.configurations[0], found.configurations[-1]) == ((1, 1, 1, 1, 14), (14, 1, 1, 1, 1))
    assert found.default is not None
    assert found.configurations[found.default] == (1, 2, 3, 7, 5)


def test_too_few_are_refused() -> None:
    model = resnet20_cifar().eval()
    graph = capture(model, torch.randn(1, 3, 32, 32))
    with pytest.raises(UsageError, match="2 at least"):
        add_choices(model, graph, ["pooling"], {"pooling": {"most": 1}})
    add_choices(model, graph, ["pooling"], {"pooling": {"most": 5}})
    assert len(graph.choices[0]) == 6
    assert "36 ways; 5 of them" in graph.remarks[0]


# ---- what has none


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 4), conv(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(nn.functional.max_pool2d(self.one(x), 2))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Pyramid(nn.Module):
    """What is read of every resolution passes beside the layers behind."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 4), conv(4, 4, stride=2), conv(4, 4, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one = self.one(x)
        two = self.two(one)
        return one, two, self.three(two)


class Nested(nn.Module):
    """Down and up again, with what was kept on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.down, self.up = conv(3, 4), conv(4, 4, stride=2), nn.ConvTranspose2d(4, 4, 2, 2)
        self.last = conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        out: Tensor = self.last(torch.cat([x, self.up(self.down(x))], 1))
        return out


def fixed_head() -> nn.Module:
    return nn.Sequential(
        conv(3, 4), conv(4, 4, stride=2), conv(4, 4), nn.Flatten(), nn.Linear(4 * 9 * 9, 2)
    )  # of 17 a stride makes 9, a pool 8


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        (Functional(), (3, 16, 16), "the model calls max_pool2d_with_indices itself"),
        (Pyramid(), (3, 16, 16), "no trunk"),
        (Nested(), (3, 16, 16), "no trunk"),
        (nn.Sequential(conv(3, 4), conv(4, 4), nn.Flatten()), (3, 8, 8), "falls nowhere"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (4,), "no trunk"),
        (fixed_head(), (3, 17, 17), r"pooled as \[2, 1\] it does not run .*shapes.* one less than a stride does"),
        (torchvision.models.resnet18(), (3, 24, 24), "inputs are too small"),
        (torchvision.models.inception_v3(init_weights=False, aux_logits=False), (3, 128, 128), "no reduction of it"),
        (torchvision.models.vit_b_32(), (3, 224, 224), "no trunk"),
    ],
    ids=["function", "pyramid", "u-net", "flat", "perceptron", "head", "small", "inception", "vit"],
)
def test_networks_without_a_choice_say_why(model: nn.Module, shape: tuple[int, ...], said: str) -> None:
    assert re.search(said, refused(model, *shape))


def test_one_way_only_is_no_choice() -> None:
    layers = [conv(3, 4), conv(4, 4, stride=2), conv(4, 4, stride=2)]
    assert "one way only (0.0, 1.0, 2.0)" in refused(nn.Sequential(*layers), 3, 16, 16)


def test_a_head_of_a_fixed_size_is_no_hindrance_where_pools_give_that_size() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 4, stride=2), conv(4, 4), nn.Flatten(), nn.Linear(4 * 64, 2)).eval()
    graph: Graph = capture(model, torch.randn(1, 3, 16, 16))
    add_choices(model, graph, ["pooling"])
    assert [a.name for a in graph.choices[0].alternatives] == ["as it is", "[1, 2]", "[2, 1]"]
