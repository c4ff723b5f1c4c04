"""Growth: the search starts at the base's size inside a larger network and is measured by the base's costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.backbones.ccnn_search import SearchableCCNN, ccnn_4_140_1d
from compressor.budget import parse_budgets
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.jobs.config import JobConfig
from compressor.jobs.run import run_job
from compressor.models import load_model
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events
from compressor.pipeline.growth import (
    base_budgets,
    describe_base,
    free_bytes,
    require_memory,
    require_room,
    training_bytes,
)
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner

X = torch.randn(4, 2, 24)


def network(blocks: int, channels: int) -> SearchableCCNN:
    torch.manual_seed(0)
    return SearchableCCNN(blocks, channels, (24,), in_channels=2, num_classes=4)


def session(model: torch.nn.Module, limit: float, **settings: Any) -> DnarchLearner:
    graph = capture(model, X, kernels=True, resolution=True)
    projector = Projector(graph, [Constraint(build("flops", graph), limit)])
    return DnarchLearner(model, projector, DnarchConfig(**settings), (np.zeros(graph.n_units), np.zeros(4)))


def test_the_search_starts_at_half_of_every_width_and_of_the_blocks() -> None:
    model = network(4, 16)
    masks = session(model, 5e5, grow=2)
    for rows, size in ((masks.width, 8), (masks.depth, 2)):
        assert rows.sizes().tolist() == pytest.approx([size] * len(rows))
        assert rows.kept().tolist() == [size] * len(rows)
    assert masks.resolution.sizes().tolist() == [12] * len(masks.resolution)
    assert masks.forward(model, X).shape == (4, 4)
    with torch.no_grad():  # it can grow as well as shrink
        masks.width.offsets.add_(0.5)
    assert (masks.width.sizes() > 8).all()


def test_sums_over_what_the_masks_leave_are_as_strong_as_those_over_all() -> None:
    model = network(4, 16)
    layer = model.blocks[0].mid
    before = layer.weight.detach().clone()
    masks = session(model, 5e5, grow=2)
    masks.strengthen_()
    live = masks.masks()[0].detach()
    axis = next(p for p in masks.graph.parameters.values() if p.name == "blocks.0.mid.weight").axes[1]
    assert axis is not None
    left = live[torch.from_numpy(axis.factors[:, 0])]
    weight = layer.weight.detach()
    assert float(((left * weight[:, :, 0]) ** 2).mean()) == pytest.approx(float((before**2).mean()), rel=0.3)
    torch.testing.assert_close(weight, before * float((len(left) / left.square().sum()).sqrt()))
    assert model.blocks[0].write.scale.eq(1).all()  # no sum


def test_shares_are_those_of_the_base() -> None:
    base = network(2, 8)
    flops = build("flops", capture(base, X)).original
    asked = parse_budgets({"flops": "50%", "params": "1000"})
    one, two = base_budgets(asked, describe_base(asked, base, X).costs)
    assert (one.value, one.relative, one.text) == (0.5 * flops, False, "50%")
    assert two.value == 1000
    assert one.limit(1e12) == 0.5 * flops
    with pytest.raises(UsageError, match="an amount, such as 3ms"):
        describe_base(parse_budgets({"latency": "50%"}), base, X)


def test_memory_grows_with_the_batch_and_the_network() -> None:
    small, large = (capture(network(n, 8 * n), X) for n in (1, 2))
    assert training_bytes(large, 8) > training_bytes(small, 8)
    activations = training_bytes(small, 9) - training_bytes(small, 8)
    assert training_bytes(small, 16) == pytest.approx(training_bytes(small, 8) + 8 * activations)
    assert activations > 4 * 24 * 8  # at least the stream


def test_what_does_not_fit_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 0
    require_memory(network(1, 8), X, 4, 2)
    monkeypatch.setattr("compressor.pipeline.growth.free_bytes", lambda _: 1e5)
    with pytest.raises(UsageError, match=r"Grown 2 times, the network takes about .* GB .* and 0.0001 GB are free"):
        require_memory(network(1, 8), X, 64, 2)


def test_weights_for_which_there_is_no_room_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def build(grow: int) -> torch.nn.Module:
        made.append(grow)
        return network(grow, 8 * grow)

    bytes_of = {n: 4 * sum(p.numel() for p in network(n, 8 * n).parameters()) for n in (4, 5)}
    monkeypatch.setattr("compressor.pipeline.growth.free_bytes", lambda _: float(bytes_of[5]))
    require_room(build, 4)
    with pytest.raises(UsageError, match=r"Grown 8 times, the weights of the network alone .* lower --dnarch.grow"):
        require_room(build, 8)
    assert set(made) == {1, 2}
    monkeypatch.setattr("compressor.pipeline.growth.free_bytes", lambda _: None)
    require_room(build, 10**6)


def test_who_can_grow() -> None:
    grown = load_model("ccnn_4_140_1d", weights="none", example_shape=(1, 16), grow=2)
    assert len(grown.model.blocks) == 8  # type: ignore[arg-type]
    assert grown.model.encoder.out_channels == 280  # type: ignore[union-attr]
    assert grown.kwargs["grow"] == 2
    for name in ("resnet20_cifar", "resnet18"):
        with pytest.raises(UsageError, match=r"has one size.*ccnn_4_140"):
            load_model(name, weights="none", grow=2)
    with pytest.raises(UsageError, match="at least 1"):
        ccnn_4_140_1d(grow=0)
    with pytest.raises(UsageError, match="grow must be a whole number"):
        DnarchConfig(grow=0)
    assert DnarchConfig(grow=2).decides == {"width", "depth", "kernel", "resolution"}


@pytest.mark.slow
def test_a_report_compares_with_the_base(tmp_path: Path) -> None:
    config = JobConfig(
        model="ccnn_4_140",
        weights="none",
        data="digits",
        search="dnarch",
        options={"grow": 2},
        budgets=parse_budgets({"complexity": "100%"}),
        search_epochs=1,
        finetune_epochs=0,
        bench_seconds=0,
        out=str(tmp_path / "out"),
    )
    report = run_job(config, events=Events(Console(quiet=True)))
    widths = {width.layer: width for width in report.widths}
    assert widths["blocks.0.mid"].before == 140
    assert widths["decoder"].before == widths["decoder"].after == 10
    blocks = {row.name: row for row in report.blocks}
    assert blocks["blocks.0"].width_before == [140, 140, 140]
    assert {name for name, row in blocks.items() if row.new} <= {f"blocks.{i}" for i in range(4, 8)}
    assert all(row.width_after or row.width_before for row in report.blocks)
    assert set(report.blocks_removed) <= {f"blocks.{i}" for i in range(4)}
    onnx = next(size for size in report.sizes if size.name == "ONNX file")
    assert onnx.original_bytes == pytest.approx(4 * 207e3, rel=0.6)  # the grown network has four times as much
