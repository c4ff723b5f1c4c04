"""Every configuration of pools applies, runs, costs what was said, and computes what a network written so does."""

from __future__ import annotations

import copy
import json
import random
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import edit_from_json
from compressor.backbones.resnet_cifar import CifarResNet, resnet20_cifar
from compressor.costs import Sizes, build
from compressor.errors import VerificationError
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.graph.groups import Alternatives
from compressor.pipeline.chosen import with_choices
from compressor.search.result import SearchResult
from compressor.testing import ChoiceContract
from tests.graph.test_stages import cifar, conv

EXACT = ("flops", "params", "memory")
COSTS = (*EXACT, "complexity")
#: Layers begin with a norm or an activation: a runtime folds it into the convolution before, unless a pool is between.
NORMS_FIRST = ("timm:resnetv2_50", "timm:nfnet_f0")


def found(model: nn.Module, x: Tensor, kinds: tuple[str, ...] = ("pooling",)) -> tuple[Graph, Alternatives]:
    model.eval()
    graph = capture(model, x)
    add_choices(model, graph, kinds)
    (choice,) = [choice for choice in graph.choices if choice.of == "pooling"]
    return graph, choice


def taking(graph: Graph, choice: Alternatives, index: int) -> SearchResult:
    """The decision for one alternative."""
    units = graph.all_units()
    units[choice.units] = False
    units[choice.units[index]] = True
    return SearchResult(units, torch.zeros(graph.n_units), [])


def applied(model: nn.Module, graph: Graph, choice: Alternatives, index: int) -> nn.Module:
    """A fresh copy with an alternative's edits, through JSON."""
    written = json.dumps([edit.to_json() for edit in choice.alternatives[index].edits])
    edits = tuple(edit_from_json(edit, "edit") for edit in json.loads(written))
    assert edits == choice.alternatives[index].edits
    shapes = {p.name: list(p.shape) for p in graph.parameters.values()}
    aliases = {p.name: list(p.names) for p in graph.parameters.values() if len(p.names) > 1}
    return Architecture(graph.model_class, shapes, edits, aliases=aliases).apply_(copy.deepcopy(model))


def check(model: nn.Module, x: Tensor, count: int = 3, costs: tuple[str, ...] = COSTS) -> None:
    """Some configurations, the first and the last among them, apply and cost what was said."""
    graph, choice = found(model, x)
    assert graph.stages is not None
    assert len(choice) == len(graph.stages.configurations) + 1
    before = capture(model, x)
    terms = {cost: build(cost, graph) for cost in costs}
    for cost in costs:
        assert terms[cost].original == build(cost, before).original
    taken = random.Random(0).sample(range(2, len(choice) - 1), min(count, max(len(choice) - 3, 0)))
    for index in sorted({1, *taken, len(choice) - 1}):
        changed = applied(model, graph, choice, index)
        with torch.no_grad():
            assert torch.isfinite(changed(x)).all()
        units = torch.from_numpy(taking(graph, choice, index).units[:-1].astype("float64"))
        traced = capture(changed, x)
        for cost in costs:
            said, is_ = float(terms[cost](Sizes(graph, units))), build(cost, traced).original
            assert said == pytest.approx(is_, rel=1e-6), (cost, choice.alternatives[index].name)


def model_of(name: str) -> nn.Module:
    if name.startswith("timm:"):
        return pytest.importorskip("timm").create_model(name.removeprefix("timm:"), num_classes=10)  # type: ignore[no-any-return]
    options: dict[str, Any] = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=10, **options)


def test_the_interface_that_methods_use() -> None:
    graph, choice = found(resnet20_cifar(), torch.randn(1, 3, 32, 32))
    assert graph.stages is not None
    assert choice.current == 0
    assert choice.alternatives[0].edits == ()
    assert [a.name for a in choice.alternatives[:3]] == ["as it is", "[1, 1, 8]", "[1, 2, 7]"]
    assert choice.alternatives[24].name == "[4, 3, 3]" == str(list(graph.stages.configurations[23]))
    names = set(dict(resnet20_cifar().named_modules()))
    assert set(graph.stages.layers) <= names


def test_all_36_cost_what_was_said() -> None:
    check(resnet20_cifar(), torch.randn(1, 3, 32, 32), 34)


@pytest.mark.parametrize("size", [(33, 47), (19, 64)])
def test_sizes_that_pools_do_not_divide(size: tuple[int, int]) -> None:
    check(resnet20_cifar(), torch.randn(1, 3, *size), 6)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_backbones_cost_what_was_said(name: str) -> None:
    check(model_of(name), torch.randn(1, 3, 65, 97))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("resnet50", "wide_resnet50_2", "resnext50_32x4d", "regnet_y_400mf", "regnet_x_800mf", "mobilenet_v3_large"),
        *(
            "efficientnet_b0",
            "efficientnet_v2_s",
            "densenet121",
            "vgg11_bn",
            "convnext_tiny",
            "mnasnet1_0",
            "googlenet",
        ),
        *("shufflenet_v2_x1_0", "alexnet", "timm:resnet18d", "timm:seresnet18", "timm:resnetv2_50", "timm:nfnet_f0"),
        *("timm:mobilenetv3_small_100", "timm:convnext_atto", "timm:regnetz_005", "timm:vovnet39a", "timm:darknet53"),
        *("timm:res2net50_26w_4s", "timm:ghostnet_100", "timm:xception41", "timm:selecsls42", "timm:edgenext_x_small"),
        *("timm:dpn48b", "timm:poolformer_s12", "timm:mobilevit_xxs", "timm:repvgg_a0"),
    ],
)
def test_many_backbones_cost_what_was_said(name: str) -> None:
    costs = EXACT if name in NORMS_FIRST else COSTS
    check(model_of(name), torch.randn(1, 3, 96, 64), 2, costs)


def test_one_dimension() -> None:
    def layer(a: int, b: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(a, b, 5, stride, 2), nn.BatchNorm1d(b), nn.ReLU())

    layers = [layer(2, 4), layer(4, 8, 2), nn.MaxPool1d(3, 2, 1), layer(8, 8), layer(8, 8, 2), layer(8, 8)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))
    check(model, torch.randn(1, 2, 101), 9)


def test_activations_in_place_and_what_is_read_before_a_norm() -> None:
    class Before(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.norm, self.one = nn.BatchNorm2d(a), nn.Conv2d(a, b, 3, stride, 1, bias=False)
            self.two, self.short = nn.Conv2d(b, b, 3, 1, 1), nn.Conv2d(a, b, 1, stride)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.norm(x), inplace=True)
            out: Tensor = self.short(x) + self.two(F.relu(self.one(x), inplace=True))
            return out

    layers = [nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(True), *(Before(4, 4, s) for s in (1, 2, 1, 2, 1)), nn.ReLU(True)]
    # Whether a runtime folds the norm into the convolution before depends on whether a pool is between.
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
    check(model, torch.randn(1, 3, 30, 22), 9, EXACT)


def pooled_by_hand(model: CifarResNet, before: set[str], x: Tensor) -> Tensor:
    """ResNet-20 as the paper has it: no strides, and ``max_pool2d(2)`` before the blocks named."""
    x = F.relu(model.bn1(F.conv2d(x, model.conv1.weight, padding=1)))
    for name, block in [(n, m) for n, m in model.named_modules() if n.count(".") == 1]:
        if name in before:
            x = F.max_pool2d(x, 2)
        y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, padding=1)))
        y = block.bn2(F.conv2d(y, block.conv2.weight, padding=1))
        extra = (y.shape[1] - x.shape[1]) // 2
        x = F.relu(y + F.pad(x, (0, 0, 0, 0, extra, extra)))
    out: Tensor = model.linear(x.mean((2, 3)))
    return out


@pytest.mark.parametrize(
    ("index", "before"), [(24, {"layer2.0", "layer3.0"}), (34, {"layer3.0", "layer3.1"}), (1, {"layer1.0", "layer1.1"})]
)
def test_a_configuration_computes_what_a_network_written_so_does(index: int, before: set[str]) -> None:
    torch.manual_seed(0)
    model, x = resnet20_cifar().double(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    graph, choice = found(model, x[:1])
    with torch.no_grad():
        said = applied(model, graph, choice, index)(x)
        by_hand = pooled_by_hand(model, before, x)
    assert float((said - by_hand).abs().max()) <= 1e-12 * float(by_hand.abs().max())
    weights = model.state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in applied(model, graph, choice, index).state_dict().items())


@pytest.mark.parametrize("index", [0, 1, 17, 24, 36])
def test_a_job_makes_the_configuration_and_holds_it_to_its_costs(index: int) -> None:
    model, x = resnet20_cifar(), torch.randn(1, 3, 32, 32)
    graph, choice = found(model, x)
    decision = taking(graph, choice, index)
    half = graph.group("layer3.1.conv1").units[::2]
    decision.units[half] = False
    made = with_choices(model, graph, decision, lambda changed: capture(changed, x))
    assert (made.architecture is None) is (index == 0)
    assert made.units[made.graph.group("layer3.1.conv1").units].sum() == 32
    assert made.cost("flops") < build("flops", made.graph).original


def test_a_block_that_a_pool_stands_before_is_not_taken_out() -> None:
    model, x = resnet20_cifar(), torch.randn(1, 3, 32, 32)
    graph, choice = found(model, x)
    decision = taking(graph, choice, 1)  # pools before layer1.0 and layer1.1
    for name, goes in (("layer1.1", False), ("layer3.2", True)):
        decision.gates = graph.gates(None)
        decision.gates[[block.name for block in graph.blocks].index(name)] = False
        if goes:
            made = with_choices(model, graph, decision, lambda changed: capture(changed, x))
            assert made.gates is not None
            assert [b.name for b in made.graph.blocks if not made.gates[b.index]] == [name]
        else:
            with pytest.raises(VerificationError, match="decide on blocks"):
                with_choices(model, graph, decision, lambda changed: capture(changed, x))


def test_kernels_are_chosen_at_every_resolution() -> None:
    """Both kinds together: what a kernel multiplies, it does wherever its layer runs."""
    model, x = cifar("resnet18"), torch.randn(1, 3, 32, 32)
    graph, choice = found(model, x, ("pooling", "convolution"))
    decision = taking(graph, choice, 7)
    (kernel,) = [other for other in graph.choices if other.name == "layer2.1.conv1"]
    names = [a.name for a in kernel.alternatives]
    decision.units[kernel.units] = False
    decision.units[kernel.units[names.index("5x5 d1")]] = True
    made = with_choices(model, graph, decision, lambda changed: capture(changed, x))
    assert made.architecture is not None
    assert {edit.kind for edit in made.architecture.edits} >= {"keep_resolution", "replace_convolution"}


def test_resolutions_of_blocks_are_another_question() -> None:
    model, x = resnet20_cifar().eval(), torch.randn(1, 3, 32, 32)
    graph = capture(model, x, resolution=True)
    add_choices(model, graph, ["pooling"])
    assert graph.stages is not None
    assert "other groups" in graph.stages.reason


def test_kernels_that_can_shrink_and_what_is_excluded_are_traced_alike() -> None:
    model, x = resnet20_cifar().eval(), torch.randn(1, 3, 32, 32)
    graph = capture(model, x, kernels=True, exclude=("layer2.*",))
    add_choices(model, graph, ["pooling"])
    (choice,) = graph.choices
    units = torch.from_numpy(taking(graph, choice, 30).units[:-1].astype("float64"))
    changed = applied(model, graph, choice, 30)
    for cost in ("flops", "memory"):
        is_ = build(cost, capture(changed, x)).original
        assert float(build(cost, graph)(Sizes(graph, units))) == pytest.approx(is_, rel=1e-6)


class TestPoolingContract(ChoiceContract):
    kind: ClassVar[str] = "pooling"

    def network(self) -> nn.Module:
        layers = [conv(3, 4), conv(4, 8, stride=2), conv(8, 8), conv(8, 8, stride=2), conv(8, 8)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    def example(self) -> Tensor:
        return torch.randn(1, 3, 20, 28, generator=torch.Generator().manual_seed(0))
