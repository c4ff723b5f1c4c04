"""What only a GPU can show. ``tests/profilers/test_runtimes.py`` puts the same runtimes through the common contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from exporters import registry as formats
from exporters.nvidia import gpu_availability
from profilers import registry
from profilers.interleave import interleave

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (gpu_availability().ok and torch.cuda.is_available()), reason="no usable GPU"),
]

IMAGE = torch.zeros(1, 3, 64, 64)


def net(width: int = 64) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()


def test_events_and_wall_clock_agree() -> None:
    samples = registry.get("torch-cuda").load(net(512), IMAGE, batch=16).measure(20).after(5)
    for latency, enqueue, compute in zip(samples.latency_ms, samples.enqueue_ms, samples.compute_ms, strict=True):
        assert 0 < enqueue <= latency
        assert 0 < compute <= latency * 1.05


def test_a_cuda_graph_takes_the_launch_cost_away() -> None:
    runtime = registry.get("torch-cuda")
    runners = {"eager": runtime.load(net(), IMAGE), "graph": runtime.load(net(), IMAGE, cuda_graph=True)}
    found = interleave(runners, seconds=2.0)
    assert found.timings["graph"].enqueue_ms is not None
    assert found.timings["eager"].enqueue_ms is not None
    assert found.timings["graph"].enqueue_ms < found.timings["eager"].enqueue_ms


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_compute_what_pytorch_computes(name: str, precision: str, tmp_path: Path) -> None:
    exporter = formats.get(name)
    if not exporter.is_available():
        pytest.skip(exporter.is_available().reason)
    info = exporter.export(net().cuda(), IMAGE, tmp_path / f"model{exporter.suffix}", precision=precision)
    assert [check.batch for check in info.checks] == [1, 2, 5]
    runner = registry.get(name).load(info.path, batch=2)
    assert runner.info.batch == 2
    runner.run()


def test_closing_gives_the_memory_back() -> None:
    before = torch.cuda.memory_allocated()
    runner = registry.get("torch-cuda").load(net(512), IMAGE)
    assert torch.cuda.memory_allocated() > before
    runner.close()
    assert torch.cuda.memory_allocated() <= before + (1 << 20)
