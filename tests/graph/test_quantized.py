"""Networks prepared for quantisation: trimmed exactly, per-channel scales and observed ranges with their channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization as q
from torch import Tensor, nn

import compressor
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.nn.quantization import rounded_per_channel, rounded_per_tensor
from compressor.trim import trim_verified

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao announces its successor at every call


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = q.QuantStub(), q.DeQuantStub()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.c = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU())
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(self.quant(x))))
        return self.dequant(self.fc(x.mean((2, 3))))  # type: ignore[no-any-return]


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _prepared(qconfig: Any, *, fused: bool, training: bool, seen: bool) -> nn.Module:
    torch.manual_seed(0)
    net: Any = _Net().train(training)
    net.qconfig = qconfig
    for part in (net.a, net.b, net.c) if fused else ():
        (q.fuse_modules_qat if training else q.fuse_modules)(part, ["0", "1", "2"], inplace=True)  # type: ignore[no-untyped-call]
    (q.prepare_qat if training else q.prepare)(net, inplace=True)  # type: ignore[no-untyped-call]
    if seen:
        net(X)
    return net  # type: ignore[no-any-return]


_learnt_apart = q.QConfig(
    activation=q.FakeQuantize.with_args(observer=q.HistogramObserver),  # type: ignore[no-untyped-call]
    weight=q.FakeQuantize.with_args(  # type: ignore[no-untyped-call]
        observer=q.PerChannelMinMaxObserver, dtype=torch.qint8, qscheme=torch.per_channel_symmetric,
        quant_min=-128, quant_max=127,
    ),
)  # fmt: skip
QCONFIGS = {
    "fused moving averages": q.get_default_qat_qconfig("fbgemm"),
    "per tensor": q.get_default_qat_qconfig("qnnpack"),
    "not fused": q.get_default_qat_qconfig("fbgemm", version=0),
    "histograms and extremes": _learnt_apart,
}


def _halved(graph: Graph) -> Any:
    units = graph.all_units()
    rng = np.random.default_rng(0)
    for group in graph.groups:
        units[group.units] = rng.permutation(len(group)) < max(1, len(group) // 2)
    return units


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", QCONFIGS)
def test_what_is_trained_for_quantisation_is_trimmed_exactly(name: str, fused: bool, seen: bool) -> None:
    net = _prepared(QCONFIGS[name], fused=fused, training=True, seen=seen)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    graph = capture(net, X[:1])
    assert len(graph.groups) == 2
    result = trim_verified(net, graph, _halved(graph), X[:1])
    assert not result.refused
    assert result.check.error <= 1e-9
    assert result.check.tolerance == 1e-9  # in double, though PyTorch rounds in single precision alone
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())  # observers did not look
    small: Any = result.model
    assert small.a[0].out_channels == 4
    for convolution in (small.a[0], small.b[0], small.c[0]):
        rounded = convolution.weight_fake_quant
        for seen_by_channel in (rounded.scale, rounded.zero_point, rounded.activation_post_process.min_val):
            assert seen_by_channel.numel() in (0, 1, convolution.out_channels)
    small.train()
    small(X).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())
    if fused and name == "fused moving averages":
        small.eval()
        int8 = q.convert(small)  # type: ignore[no-untyped-call]
        assert int8.a[0].weight().shape == (4, 3, 3, 3)
        assert float((int8(X) - small(X)).abs().max()) < 0.1 * float(small.fc.activation_post_process.scale) * 256


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("backend", ["fbgemm", "qnnpack"])
def test_what_is_observed_for_quantisation_is_trimmed_exactly(backend: str, seen: bool) -> None:
    net = _prepared(q.get_default_qconfig(backend), fused=True, training=False, seen=seen)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    graph = capture(net, X[:1])
    result = trim_verified(net, graph, _halved(graph), X[:1])
    assert not result.refused
    assert result.check.error <= 1e-9
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    small = result.model
    small(X)
    assert q.convert(small)(X).shape == (4, 5)  # type: ignore[no-untyped-call]


def test_a_graph_prepared_by_fx_is_compressed() -> None:
    from torch.ao.quantization import quantize_fx

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3)).train()
    prepared = quantize_fx.prepare_qat_fx(plain, q.get_default_qat_qconfig_mapping("fbgemm"), (X,))  # type: ignore[no-untyped-call]
    prepared(X)
    before = {key: value.clone() for key, value in prepared.state_dict().items()}
    result = compressor.compress(prepared, X[:1], {"flops": "60%"})
    assert all(torch.equal(before[key], value) for key, value in prepared.state_dict().items())
    assert result.report.budgets[0].reached < 0.6 * result.report.budgets[0].original
    assert result.report.verification.error <= 1e-9


def test_rounding_in_double_is_that_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, scale = torch.randn(3, 5, 2, generator=generator), torch.rand(5, generator=generator) * 0.1 + 0.01
    zero = torch.tensor([0, 3, -4, 100, 0], dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(x, scale, zero, 1, -128, 127)
    assert torch.allclose(rounded_per_channel(x, scale, zero, 1, -128, 127), expected, atol=1e-6)
    expected = torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255)
    assert torch.allclose(rounded_per_tensor(x, 0.1, 3, 0, 255), expected, atol=1e-6)


def test_ranges_of_activations_begin_again_when_training_goes_on() -> None:
    net = _prepared(QCONFIGS["fused moving averages"], fused=True, training=True, seen=True)
    small: Any = compressor.compress(net, X[:1], {"flops": "60%"}).model
    observers = {n: m.activation_post_process for n, m in small.named_modules() if isinstance(m, q.FakeQuantize)}
    before = {name: observer.max_val.clone() for name, observer in observers.items()}
    capture(small, X[:1])  # does not train it
    assert all(torch.equal(observers[name].max_val, value) for name, value in before.items())
    seen: list[Tensor] = []
    small.fc.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    small.train()
    output = small.fc.weight_fake_quant(small.fc.weight)  # weights are what they were
    small(X)
    assert float(observers["fc.weight_fake_quant"].max_val[0]) == pytest.approx(
        float(before["fc.weight_fake_quant"][0])
    )
    found = float(observers["fc.activation_post_process"].max_val)
    assert found == pytest.approx(float(nn.functional.linear(seen[0], output, small.fc.bias).max()), rel=1e-4)
    assert not any(module._forward_pre_hooks for module in small.modules() if isinstance(module, q.FakeQuantize))
    again = observers["fc.activation_post_process"].max_val.clone()
    small(100 * X)
    assert float(observers["fc.activation_post_process"].max_val) < float(again) * 10  # moves on, and no further
