"""Which activations may be another, and what is left alone."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from compressor.architecture.edits import ReplaceActivation
from compressor.backbones.mobilenet_space import MobileNetSpace, Stage
from compressor.errors import UsageError
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.pipeline.chosen import with_choices
from compressor.search.result import SearchResult
from compressor.testing import ChoiceContract


def found(model: nn.Module, x: Tensor, **options: Any) -> Graph:
    graph = capture(model.eval(), x)
    add_choices(model, graph, ["activation"], {"activation": options})
    return graph


def every_kind() -> nn.Sequential:
    kinds = (nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Hardswish(inplace=True), nn.GELU("tanh"), nn.Tanh())
    layers = [layer for kind in kinds for layer in (nn.Conv2d(4, 4, 1), kind)]
    return nn.Sequential(*layers, nn.Conv2d(4, 4, 1))


IMAGE = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def test_every_known_activation_is_a_site_with_what_it_has_among_the_alternatives() -> None:
    graph = found(every_kind(), IMAGE)
    names = {c.name: ([a.name for a in c.alternatives], c.current) for c in graph.choices}
    assert names == {
        "1": (["relu", "silu"], 0),
        "3": (["relu", "silu", "relu6"], 2),
        "5": (["relu", "silu"], 1),
        "7": (["relu", "silu", "hardswish"], 2),
        "9": (["relu", "silu", "gelu"], 2),
    }
    for choice in graph.choices:
        assert all(bool(a.edits) != (i == choice.current) for i, a in enumerate(choice.alternatives))


def test_patterns_hold_sites() -> None:
    model = every_kind()
    assert [c.name for c in found(model, IMAGE, include=["1", "3"]).choices] == ["1", "3"]
    graph = found(model, IMAGE, exclude=["1"])
    assert [c.name for c in graph.choices] == ["3", "5", "7", "9"]
    assert graph.no_choice["1"] == "excluded"


def test_what_goes_with_a_residual_block_stays_unless_blocks_do() -> None:
    model, x = models.resnet18(num_classes=4), torch.randn(1, 3, 32, 32)
    graph = found(model, x)
    assert [c.name for c in graph.choices] == ["relu", "layer2.0.relu", "layer3.0.relu", "layer4.0.relu"]
    assert graph.no_choice["layer1.0.relu"] == "a residual block goes together with it"
    assert len(found(model, x, with_depth=False).choices) == 9


def test_unused_and_shared_modules_have_one_site_or_none() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act, self.unused = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.b(self.act(self.a(x)))).mean((2, 3))

    assert [c.name for c in found(Net(), IMAGE).choices] == ["act"]


def test_an_alternative_stands_in_the_network_that_is_made_of_it() -> None:
    model = every_kind().eval()
    graph = found(model, IMAGE)
    units = graph.all_units()
    for choice in graph.choices:
        units[choice.units] = [i == 1 for i in range(len(choice))]
    decision = SearchResult(units, torch.zeros(graph.n_units), [])
    made = with_choices(model, graph, decision, lambda changed: capture(changed, IMAGE)).model
    assert [type(made[i]) for i in (1, 3, 5, 7, 9, 11)] == [nn.SiLU] * 5 + [nn.Tanh]
    assert made[7].inplace
    assert not made[1].inplace
    assert isinstance(model[1], nn.ReLU)


def test_the_edit_refuses_what_is_no_activation() -> None:
    from compressor.architecture.edits import Work

    work = Work(every_kind())
    with pytest.raises(UsageError, match="Tanh"):
        ReplaceActivation("11", "relu").check(work)


class TestContract(ChoiceContract):
    kind: ClassVar[str] = "activation"

    def network(self) -> nn.Module:
        return MobileNetSpace((Stage(6, 4, 1), Stage(8, 4, 2)), (1, 1, 1), num_classes=3, activation=nn.SiLU)

    def example(self) -> Tensor:
        return torch.randn(1, 3, 8, 8)
