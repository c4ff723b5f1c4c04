"""Means of channels that go: found without data where batch norms tell them, and taken up exactly as documented."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import compressor
from compressor.graph import Graph, capture
from compressor.masks import Masking
from compressor.trim import trim_verified
from compressor.trim.absorbed import Reader, absorbed, known_readers
from exporters.example import Example
from tests.api_models import EXAMPLE, loader, net

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """Convolutions without biases between batch norms, a skip, a pool, and a head with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.norm1 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.two, self.norm2 = nn.Conv2d(16, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(x)).relu()
        x = x + self.norm2(self.two(self.norm1(self.one(x)).relu()))
        out: Tensor = self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))
        return out


class Separable(nn.Module):
    """A depthwise convolution, features side by side, and another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.side, self.join, self.norm2 = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm0(self.stem(x)))
        x = torch.cat([nn.functional.gelu(self.side(x)), nn.functional.relu6(self.norm1(self.deep(x)))], 1)
        out: Tensor = self.head(self.norm2(self.join(x)).relu().mean((2, 3)))
        return out


class Signals(nn.Module):
    """One axis, a stack with a strided convolution, linear layers with a batch norm, and no parameters in the last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3, 2, bias=False), nn.BatchNorm1d(8)),
            *(nn.ELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 12, bias=False)),
            *(nn.BatchNorm1d(12, affine=False), nn.Hardswish(), nn.Linear(12, 4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x.flatten(2))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "separable": Separable, "signals": Signals}


def trained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network whose batch norms have seen data, with scales and shifts that differ by channel."""
    torch.manual_seed(seed)
    model = make().double()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None
            if module.affine:
                nn.init.uniform_(module.weight, 0.3, 1.5)
                nn.init.normal_(module.bias, 0.0, 1.0)
    with torch.no_grad():
        for _ in range(8):
            model.train()(torch.randn(64, 3, 8, 8, dtype=torch.float64))
    return model.eval()


def half(graph: Graph, seed: int = 0) -> Any:
    """Half of the units of every group, drawn."""
    generator, units = np.random.default_rng(seed), graph.all_units()
    for group in graph.groups:
        units[generator.choice(group.units, len(group) // 2, replace=False)] = False
    return units


def taken(model: nn.Module) -> tuple[Graph, Example, list[Reader]]:
    example = Example((X.double(),))
    graph = capture(model, example.args[0])
    return graph, example, known_readers(model, graph, example)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_result_computes_the_documented_formula(network: str) -> None:
    """Removed channels read as zeros, and the constant of each layer added to what it gives."""
    model = trained(NETWORKS[network])
    graph, example, readers = taken(model)
    units = half(graph)
    changed, count = absorbed(model, graph, readers, units, None, example)
    assert count == len(readers) >= 3
    result = trim_verified(changed, graph, units, example.args[0])
    assert result.check.passed
    assert not result.refused
    handles = []
    for reader in readers:
        module: Any = model.get_submodule(reader.name)
        gone = torch.tensor([not units[factors].all() for factors in reader.units])
        weight = module.weight.flatten(2).sum(2) if module.weight.dim() > 2 else module.weight
        constant = (weight[:, gone] * reader.mean[gone]).sum(1)

        def add(module: nn.Module, _: Any, out: Tensor, constant: Tensor = constant) -> Tensor:
            return out + (constant if isinstance(module, nn.Linear) else constant.reshape(-1, *[1] * (out.dim() - 2)))

        handles.append(module.register_forward_hook(add))
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad(), Masking(model, graph).applied(torch.from_numpy(units[:-1].astype(np.float64))):
        expected = model(x)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(x), trained(NETWORKS[network])(x))  # the model itself is as it was


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_left_is_nearer_to_the_original(network: str) -> None:
    better = []
    for seed in range(4):
        model = trained(NETWORKS[network], seed)
        graph, example, readers = taken(model)
        units, x = half(graph, seed), torch.randn(64, 3, 8, 8, dtype=torch.float64)
        changed, _ = absorbed(model, graph, readers, units, None, example)
        with torch.no_grad():
            whole = model(x)
            off = [
                float((trim_verified(each, graph, units, example.args[0]).model(x) - whole).square().mean())
                for each in (model, changed)
            ]
        better.append(off[1] / off[0])
    assert np.exp(np.log(better).mean()) < 0.8, better


def test_means_are_those_of_normal_numbers_behind_an_activation() -> None:
    """For ReLU there is a closed form: beta * Phi(beta / gamma) + gamma * phi(beta / gamma)."""
    model = trained(lambda: nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)))
    norm: Any = model[1]
    _, _, (reader,) = taken(model)
    beta, gamma = norm.bias.detach(), norm.weight.detach()
    z = beta / gamma
    expected = beta * 0.5 * (1 + torch.erf(z / math.sqrt(2))) + gamma * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    assert reader.name == "3"
    assert reader.norm is None
    assert float((reader.mean - expected).abs().max()) < 0.12  # of 2,048 numbers with deviations up to 1.5


class Twice(nn.Module):
    """A layer whose output a batch norm and something else read, one that runs twice, and one that reads raw inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.first, self.raw = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.shared = nn.Conv2d(8, 8, 1)
        self.read, self.norm1 = nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.norm0(self.stem(x)).relu()
        z = self.read(self.shared(self.shared(y).relu()).relu())
        return self.norm1(z), z, self.raw(self.first(x).relu())


def test_what_does_not_hold_is_left_out() -> None:
    model = trained(Twice)
    graph, example, readers = taken(model)
    assert [(reader.name, reader.norm) for reader in readers] == [("read", "norm1")]
    units = half(graph)
    assert absorbed(model, graph, readers, units, None, example) == (model, 0)  # as z is read beside the norm


@pytest.mark.parametrize("reason", ["new statistics", "no batch norm", "nothing goes"])
def test_networks_that_say_nothing_stay_as_they_are(reason: str) -> None:
    torch.manual_seed(0)
    if reason == "no batch norm":
        model: nn.Module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)).double()
    else:
        model = trained(Residual) if reason == "nothing goes" else Residual().double().eval()
    graph, example, readers = taken(model)
    units = graph.all_units() if reason == "nothing goes" else half(graph)
    assert bool(readers) == (reason == "nothing goes")
    assert absorbed(model, graph, readers, units, None, example) == (model, 0)


def test_jobs_without_data_do_it_and_jobs_with_data_do_not(tmp_path: Path) -> None:
    def run(absorb: bool, data: Any = None) -> tuple[dict[str, Tensor], list[str], compressor.Result]:
        model, said = trained(net).float(), []
        result = compressor.compress(
            model,
            EXAMPLE,
            {"flops": "60%"},
            data=data,
            search="oneshot",
            importance="magnitude",
            training=compressor.Training(finetune_epochs=0, batch_size=16),
            scope=compressor.Scope(absorb=absorb),
            listeners=[lambda event: said.append(getattr(event, "text", ""))],
        )
        return result.model.state_dict(), [text for text in said if "take up the mean" in text], result

    def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
        return all(torch.equal(a[name], b[name]) for name in b)

    plain, taking = run(False), run(True)
    assert (len(plain[1]), len(taking[1])) == (0, 1)
    assert not same(plain[0], taking[0])
    assert same(taking[0], run(True)[0])
    assert plain[2].architecture == taking[2].architecture
    assert taking[2].report.verification.error <= taking[2].report.verification.tolerance
    taking[2].save(tmp_path)
    assert same(compressor.load(tmp_path, net()).state_dict(), taking[0])
    with_data = [run(absorb, (loader(16), loader(16, seed=1))) for absorb in (False, True)]
    assert same(with_data[0][0], with_data[1][0])
    assert not with_data[1][1]
