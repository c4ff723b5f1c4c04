"""Continuous CNNs: size, the FFT convolution, learned kernel sizes, rendering, compression and export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import compressor
from compressor.backbones import ccnn
from compressor.errors import UsageError
from compressor.masks import gaussian


def small(dims: int = 2, **settings: object) -> ccnn.CCNN:
    torch.manual_seed(0)
    return ccnn.CCNN(2, 12, dims=dims, in_channels=2, num_classes=4, **settings)  # type: ignore[arg-type]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts() -> None:
    for make in (ccnn.ccnn_4_140, ccnn.ccnn_4_140_1d):
        assert 0.17e6 < count(make()) < 0.24e6
    for make in (ccnn.ccnn_6_380, ccnn.ccnn_6_380_1d):
        assert 1.7e6 < count(make()) < 2.2e6


@pytest.mark.parametrize(("lengths", "sizes"), [((11,), (11,)), ((12,), (5,)), ((6, 9), (7, 9)), ((5, 4), (1, 3))])
def test_the_fft_convolution_is_the_direct_one(lengths: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *lengths, dtype=torch.float64)
    kernel = torch.randn(3, *sizes, dtype=torch.float64)
    convolve = nn.functional.conv1d if len(lengths) == 1 else nn.functional.conv2d
    expected = convolve(x, kernel[:, None], padding=[k // 2 for k in sizes], groups=3)  # type: ignore[arg-type]
    torch.testing.assert_close(ccnn.long_convolution(x, kernel), expected)


@pytest.mark.parametrize("lengths", [(16,), (9,), (8, 8), (7, 10)])
@pytest.mark.parametrize("dense", [False, True])
def test_shapes_in_one_and_two_dimensions(lengths: tuple[int, ...], dense: bool) -> None:
    model = small(len(lengths), dense=dense)
    output = model(torch.randn(3, 2, *lengths))
    assert output.shape == ((3, 4, *lengths) if dense else (3, 4))


def test_tokens_are_embedded() -> None:
    torch.manual_seed(0)
    model = ccnn.CCNN(1, 8, dims=1, vocabulary=17, num_classes=10)
    assert model(torch.randint(17, (2, 40))).shape == (2, 10)


def test_kernel_sizes_are_learned() -> None:
    model = small()
    model(torch.randn(4, 2, 8, 8)).square().sum().backward()
    for block in model.blocks:
        assert block.conv.sigma.grad.abs().min() > 0


def test_a_kernel_never_vanishes_and_can_grow_again() -> None:
    model = small()
    conv = model.blocks[0].conv
    with torch.no_grad():
        conv.sigma.fill_(-1.0)
    kernel = conv.kernel((8, 8))
    assert kernel.ne(0).sum() == kernel.shape[0]  # the centre of each
    (extent,) = torch.autograd.grad(conv.extents((9, 9))[0], conv.sigma)
    assert extent.tolist() == [1, 0]


@pytest.mark.parametrize("sigma", [gaussian.SMALL, 0.2, gaussian.GLOBAL])
@pytest.mark.parametrize("lengths", [(16,), (8, 11)])
@pytest.mark.parametrize("dense", [False, True])
def test_rendered_computes_the_same(lengths: tuple[int, ...], sigma: float, dense: bool) -> None:
    model = small(len(lengths), sigma=sigma, dense=dense).double().eval()
    rendered = ccnn.render(model, lengths)
    x = torch.randn(3, 2, *lengths, dtype=torch.float64)
    torch.testing.assert_close(rendered(x), model(x))
    for block in rendered.blocks:
        assert all(k % 2 for k in block.conv.kernel_size)
        assert block.conv.kernel_size == tuple(gaussian.count(sigma, n | 1) for n in lengths)
    names = [name for name, _ in rendered.named_parameters()]
    assert not any("kernels" in name or "sigma" in name for name in names)


def test_rendering_leaves_the_original_alone() -> None:
    model = small().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rendered = ccnn.render(model, (8, 8))
    with torch.no_grad():
        for parameter in rendered.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="dims must be 1 or 2"):
        ccnn.CCNN(dims=3)
    with pytest.raises(UsageError, match="at least 1"):
        ccnn.CCNN(blocks=0)
    with pytest.raises(UsageError, match="2 axes"):
        ccnn.render(small(), (8,))
    with pytest.raises(UsageError, match="rendered already"):
        ccnn.render(ccnn.render(small(), (8, 8)), (8, 8))


@pytest.mark.parametrize("lengths", [pytest.param((16,), marks=pytest.mark.slow), (8, 8)])
def test_rendered_is_compressed_and_exported_like_any_network(lengths: tuple[int, ...], tmp_path: Path) -> None:
    import onnxruntime

    rendered = ccnn.render(small(len(lengths)).eval(), lengths)
    x = torch.randn(1, 2, *lengths)
    result = compressor.compress(rendered, x, {"flops": "50%"})
    assert count(result.model) < count(rendered)
    (file,) = result.export(tmp_path)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), result.model(x), rtol=1e-4, atol=1e-5)
