"""One-Shot and FBNet: every operator can go, exactly, one of each block stays, and FiGS deselects some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.backbones import BACKBONES
from compressor.backbones.fbnet_space import FBNetSpace
from compressor.backbones.one_shot import OPERATORS, OneShot
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.decision import decide
from compressor.search.methods.figs.learner import FigsLearner
from compressor.trim import trim_verified
from exporters import registry as formats

IMAGE = torch.randn(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
SOME = ("sep3x3", "sep1x7_7x1", "conv1x1")


def tiny(name: str) -> nn.Module:
    torch.manual_seed(0)
    common: dict[str, Any] = {"num_classes": 3, "in_channels": 2}
    if name == "fbnet":
        return FBNetSpace(((4, 1), (6, 3)), (1, 1, 2), width=1.0, **common).eval()
    aggregator = "add" if name == "one_shot_additive" else "concat"
    return OneShot(3, 2, 6, operators=SOME, aggregator=aggregator, **common).eval()


NAMES = ("one_shot", "one_shot_additive", "fbnet")


@pytest.mark.parametrize("suffix", ["", "_imagenet"])
@pytest.mark.parametrize("name", NAMES)
def test_all_operators_may_go_and_one_of_each_stays(name: str, suffix: str) -> None:
    scale = {"width": 0.1} if name == "fbnet" else {"width": 4}
    model = BACKBONES.get(name + suffix)(**scale).eval()
    graph = capture(model, torch.zeros(1, *model.input_shape))
    beside = [block for block in graph.blocks if block.beside]
    if name == "fbnet":
        blocks = [block for stage in model.stages for block in stage]
        assert len(beside) == 2 * len(blocks)
        assert sum(not block.beside for block in graph.blocks) == sum(block.residual for block in blocks)
        assert len(graph.parallels) == sum(not block.residual for block in blocks)
    else:
        assert len(beside) == 8 * 4 * len(OPERATORS)
        assert len(graph.parallels) == 8 * 4
        assert all(bool(block.outputs) == (name == "one_shot") for block in beside)


@pytest.mark.parametrize("name", NAMES)
def test_operators_go_exactly_with_channels(name: str) -> None:
    model = tiny(name)
    graph = capture(model, IMAGE)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.7):
        gates = graph.gates(rng.random(len(graph.blocks)) < share, rng.random(len(graph.blocks)))
        units = graph.all_units()
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: len(group) // 3]]] = False
        result = trim_verified(model, graph, units, IMAGE, gates=gates)
        assert result.check.passed
        assert not result.refused
        again = capture(result.model, IMAGE)
        for cost in ("flops", "params"):
            told = float(build(cost, graph)(hard_sizes(graph, units, gates)))
            assert build(cost, again).original == pytest.approx(told), cost
        assert all(any(gates[b] for b in each.blocks) for each in graph.parallels)


@pytest.mark.parametrize("name", ["one_shot", "fbnet"])
def test_an_operator_without_channels_is_deselected(name: str) -> None:
    """The decision of FiGS: a group of no expected channel takes its operator away (section 3.3)."""
    model = tiny(name)
    graph = capture(model, IMAGE)
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, 0.6 * term.original)])
    block = next(block for block in graph.blocks if block.beside)
    learner = FigsLearner(model, projector, FigsConfig())
    group = learner.operators.groups[block.index][0]
    logits = torch.full((graph.n_units,), 2.5, dtype=torch.float64)
    logits[graph.groups[group].units] = -8.0
    units, gates = decide(projector, logits, torch.full((len(graph.blocks),), 4.0, dtype=torch.float64))
    assert not gates[block.index]
    assert projector.fits(units, gates)
    result = trim_verified(model, graph, units, IMAGE, gates=gates)
    assert not result.refused
    assert not any(name in dict(result.model.named_parameters()) for name in block.parameters)
    with torch.no_grad():
        learner.logits[torch.from_numpy(graph.groups[group].units)] = -8.0
        drawn, open_ = learner.masks(torch.full_like(learner.logits, 0.5))
    assert not drawn[torch.from_numpy(graph.groups[group].units)].any()
    assert open_[block.index] == 0.0


def test_a_sample_without_any_operator_has_the_likeliest() -> None:
    model = tiny("one_shot")
    graph = capture(model, IMAGE)
    learner = FigsLearner(model, Projector(graph, [Constraint(build("flops", graph), 1.0)]), FigsConfig())
    each = graph.parallels[0].blocks
    with torch.no_grad():
        learner.logits[graph.n_units + torch.tensor(each)] = -8.0
        learner.logits[graph.n_units + each[1]] = -7.0
        _, gates = learner.masks(torch.full_like(learner.logits, 0.5))
    assert [float(gates[b]) for b in each] == [0.0, 1.0, 0.0]


def test_arguments_that_are_none_are_refused() -> None:
    for wrong in ({"operators": ("conv9x9",)}, {"aggregator": "max"}, {"cells": 0}, {"operators": ()}):
        with pytest.raises(UsageError):
            OneShot(**wrong)  # type: ignore[arg-type]
    for wrong in ({"width": 0.0}, {"strides": (1, 1)}, {"stages": ((0, 1),)}):
        with pytest.raises(UsageError):
            FBNetSpace(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "search"),
    [
        *((name, search) for name in NAMES for search in ("oneshot", "figs")),
        ("one_shot", "dnarch"),
        ("fbnet", "supernet"),
    ],
)
def test_a_search_ends_in_a_network_that_exports(tmp_path: Path, name: str, search: str) -> None:
    x, y = torch.randn(48, 2, 12, 12), torch.randint(0, 3, (48,))
    data = DataLoader(TensorDataset(x, y), batch_size=16)
    training = compressor.Training(search_epochs=3, finetune_epochs=1, batch_size=16)
    given: dict[str, Any] = {} if search == "oneshot" else {"data": (data, data), "training": training}
    if search == "supernet":
        given["options"] = {"learn": ("width", "depth")}
    if search == "figs":
        given["options"] = {"block_start": 0.0, "logit_lr": 0.5}
    result = compressor.compress(tiny(name), x[:1], {"flops": "25%"}, search=search, **given)
    flops = next(cost for cost in result.report.costs if cost.name == "flops")
    assert flops.reached <= 0.25 * flops.original
    if search == "figs":
        assert result.report.blocks_removed
    formats.get("onnx").export(result.model, x[:1], tmp_path / "model.onnx")
