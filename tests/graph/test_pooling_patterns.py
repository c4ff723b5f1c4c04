"""What is excluded, or not included, keeps its strides and has no pools put before it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from compressor.architecture.edits import KeepResolution, PlacePooling
from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.cli import main
from compressor.costs import build
from compressor.costs.sizes import Sizes
from compressor.errors import UnsupportedModelError
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.graph.groups import Alternatives
from compressor.graph.patterns import matches
from compressor.graph.pooling_choices import require_some
from compressor.search.methods.pooling.config import PoolingConfig
from tests.graph.test_pooling_choices import applied, taking
from tests.graph.test_stages import conv

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Module:
    layers = [conv(3, 4), conv(4, 4), nn.MaxPool2d(2), conv(4, 6), conv(6, 6), conv(6, 8, stride=2), conv(8, 8)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"plain": plain, "resnet": lambda: resnet20_cifar(num_classes=3)}
CASES: list[tuple[str, tuple[str, ...], tuple[str, ...], int]] = [
    ("plain", (), ("4",), math.comb(4, 2)),  # layers 0 1 3 4 5 6, of which pools stand before 1 3 5 6
    ("plain", (), ("3",), math.comb(4, 2) + 1),  # and before 3 as in the network
    ("plain", (), ("5*",), 3),  # its stride stays, so one pool is left, before 1 3 4
    ("plain", ("2", "3", "4", "5*"), (), math.comb(3, 2)),
    ("resnet", (), ("layer2*",), 0),
    ("resnet", ("layer*",), ("layer3.1",), 0),
    ("resnet", ("layer*",), ("*.conv2",), 0),
    ("resnet", ("layer2*", "layer3*"), (), math.comb(6, 2)),
]


def traced(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[nn.Module, Graph]:
    model: nn.Module = NETWORKS[name]().eval()
    graph = capture(model, X, include=include, exclude=exclude)
    add_choices(model, graph, ["pooling"], PoolingConfig().choice_options(include, exclude))
    return model, graph


@pytest.mark.parametrize(("name", "include", "exclude", "count"), CASES)
def test_modules_that_are_left_alone_have_no_edits(
    name: str, include: tuple[str, ...], exclude: tuple[str, ...], count: int
) -> None:
    model, graph = traced(name, include, exclude)
    (choice,) = graph.choices
    assert isinstance(choice, Alternatives)
    stages: Any = graph.stages
    if count:
        assert len(stages.configurations) == count

    def free(module: str) -> bool:
        return not matches(module, exclude) and (not include or matches(module, include))

    for at, configuration in enumerate(stages.configurations):
        for edit in choice.alternatives[at + 1].edits:
            if isinstance(edit, KeepResolution):
                assert all(free(module) for module in edit.modules)
            if isinstance(edit, PlacePooling):
                assert free(edit.module) or at == stages.default
        assert sum(configuration) == len(stages.layers)
    cuts = [0, *(reduction.before for reduction in stages.reductions), len(stages.layers)]
    assert stages.configurations[stages.default] == tuple(b - a for a, b in pairwise(cuts))
    for index in {1, len(choice) - 1}:
        units = torch.from_numpy(taking(graph, choice, index).units[:-1].astype("float64"))
        changed = capture(applied(model, graph, choice, index), X)
        for cost in ("flops", "memory"):
            is_ = build(cost, changed).original
            assert float(build(cost, graph)(Sizes(graph, units))) == pytest.approx(is_, rel=1e-6)


@pytest.mark.parametrize(
    ("include", "exclude", "said"),
    [
        ((), ("layer2.0", "layer3.0"), "is excluded"),
        (("stem*", "head"), (), "is not included"),
        (("layer2.0", "layer3.0"), (), "included and not excluded"),
    ],
)
def test_nothing_left_to_choose_says_why(include: tuple[str, ...], exclude: tuple[str, ...], said: str) -> None:
    _, graph = traced("resnet", include, exclude)
    with pytest.raises(UnsupportedModelError, match=said):
        require_some(graph)


def test_inspect_shows_what_patterns_leave(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["inspect", "--model", "resnet20_cifar", "--input-shape", "3,16,16", "--pooling", "--exclude", "layer3*"]
    assert main([*asked, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [reduction["before"] for reduction in found["stages"]["reductions"]] == ["layer2.0"]
    assert "excluded" in found["stages"]["staying"][0]
    kept = {each["name"]: each["reason"] for each in found["no_choice"]}
    assert kept["layer3.0.conv1"] == "excluded"
