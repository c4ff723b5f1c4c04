"""What the modules promise: candidates, mixtures, ordinary convolutions in and out, copies, and refusals."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from compressor.errors import TrainingError, UsageError
from compressor.nn import AggConv1d, AggConv2d, Candidate
from compressor.nn.aggregated.forms import FORMS
from tests.nn.aggregated.reference import Case, cases


def one_hot(agg: AggConv1d | AggConv2d, index: int) -> None:
    agg.given = torch.eye(len(agg.candidates), dtype=agg.weights[0].dtype)[index]


def test_candidates_are_all_pairs_kernels_outer() -> None:
    agg = AggConv2d(3, 4)
    assert agg.candidates == tuple(Candidate((k, k), (d, d)) for k in (3, 5, 7, 9) for d in (1, 3, 7, 15))
    assert [tuple(weight.shape) for weight in agg.weights] == [(4, 3, *c.kernel_size) for c in agg.candidates]
    assert agg.alpha.shape == (16,)
    assert 0 < agg.alpha.abs().max() < 1e-2
    assert len(AggConv1d(3, 4).candidates) == 20


@settings(max_examples=60)
@given(cases())
def test_a_candidate_alone_is_its_ordinary_convolution(case: Case) -> None:
    agg, x = case.module("weights"), case.input().detach()
    for i in range(len(agg.candidates)):
        one_hot(agg, i)
        if min(agg._lefts[i]) < 0:
            with pytest.raises(UsageError, match="padding"):
                agg.convolution(i)
            assert agg.padding != "same"
            continue
        conv = agg.convolution(i)
        torch.testing.assert_close(conv(x), agg(x), rtol=1e-10, atol=1e-12)
        assert agg.best() == i


def test_an_ordinary_convolution_has_copies() -> None:
    agg = AggConv1d(2, 2, (3, 5), (1, 3))
    conv = agg.convolution(3)
    assert (conv.kernel_size, conv.dilation, conv.padding) == ((5,), (3,), (6,))
    assert conv.weight is not agg.weights[3]
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
    assert agg.weights[3].abs().sum() > 0
    assert agg.bias.abs().sum() > 0


def test_mixtures() -> None:
    agg = AggConv1d(2, 2, (3, 5), (1, 3))
    torch.manual_seed(0)
    one, two = agg.mixture(), agg.mixture()
    assert not torch.equal(one, two)
    assert one.sum().item() == pytest.approx(1)
    assert one.requires_grad
    agg.eval()
    assert torch.equal(agg.mixture(), agg.alpha.softmax(0))
    agg.given = torch.tensor([1.0, 0, 0, 0])
    assert agg.mixture() is agg.given
    assert agg.train().mixture() is agg.given
    assert agg.best() == 0


def test_samples_prefer_what_alpha_prefers() -> None:
    torch.manual_seed(0)
    agg = AggConv1d(1, 1, (3, 5), (1,))
    with torch.no_grad():
        agg.alpha.copy_(torch.tensor([2.0, 0.0]))
    drawn = torch.stack([agg.mixture() for _ in range(2000)])
    assert (drawn[:, 0] > 0.5).float().mean().item() == pytest.approx(agg.alpha.softmax(0)[0].item(), abs=0.03)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_shares_that_are_not_finite_are_told(value: float) -> None:
    agg = AggConv1d(2, 2, (3, 5), (1, 3)).eval()
    with torch.no_grad():
        agg.alpha[2] = value
    for act in (agg.mixture, agg.best, lambda: agg(torch.randn(1, 2, 9))):
        with pytest.raises(TrainingError, match=r"alpha .* for kernel 5, dilation 1"):
            act()
    agg.given = torch.tensor([0.0, value, 0, 0])
    with pytest.raises(TrainingError, match="given"):
        agg.best()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padding", ["same", 4])
def test_in_the_place_of_a_convolution(form: str, padding: Any) -> None:
    torch.manual_seed(0)
    stride = 1 if padding == "same" else 2
    conv = nn.Conv2d(4, 6, (3, 5), stride=stride, padding=padding, dilation=(1, 2), groups=2, dtype=torch.float64)
    own = Candidate((3, 5), (1, 2))
    candidates = [Candidate((1, 7), (1, 1)), own, Candidate((9, 9), (2, 1)), Candidate((3, 3), (2, 2))]
    agg = AggConv2d.of(conv, candidates, form=form, alpha=False)
    assert agg.alpha is None
    assert "alpha" not in dict(agg.named_parameters())
    assert agg.weights[1] is conv.weight
    assert agg.bias is conv.bias
    x = torch.randn(2, 4, 13, 11, dtype=torch.float64)
    for i in range(4):
        one_hot(agg, i)
        assert agg(x).shape == conv(x).shape
        torch.testing.assert_close(agg.convolution(i)(x), agg(x), rtol=1e-10, atol=1e-12)
    one_hot(agg, 1)
    torch.testing.assert_close(agg(x), conv(x), rtol=1e-10, atol=1e-12)
    agg.given = None
    with pytest.raises(UsageError, match="given"):
        agg(x)


def test_the_others_are_drawn_with_the_gain_of_its_own() -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(32, 64, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(3)
    agg = AggConv1d.of(conv, [Candidate((3,), (1,)), Candidate((11,), (1,)), Candidate((3,), (5,))])
    for weight in agg.weights:
        gain = weight.std() * (weight.shape[2] ** 0.5)
        assert gain.item() == pytest.approx(conv.weight.std().item() * 3**0.5, rel=0.05)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kernel", "dilation"), [(4, 1), (8, 3), (2, 2)])
def test_an_even_kernel_of_its_own(form: str, kernel: int, dilation: int) -> None:
    conv = nn.Conv1d(2, 3, kernel, padding="same", dilation=dilation, dtype=torch.float64)
    agg = AggConv1d.of(conv, [Candidate((kernel,), (dilation,)), Candidate((7,), (3,))], form=form)
    x = torch.randn(2, 2, 12, dtype=torch.float64)
    for i in range(2):
        one_hot(agg, i)
        torch.testing.assert_close(agg.convolution(i)(x), agg(x), rtol=1e-10, atol=1e-12)
    one_hot(agg, 0)
    torch.testing.assert_close(agg(x), conv(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "candidates", "words"),
    [
        (nn.Conv1d(2, 2, 5, padding=1), [Candidate((1,), (1,))], "kernel 1, dilation 1 .* -1"),
        (nn.Conv1d(2, 2, 4, padding=1), [Candidate((3,), (1,))], "kernel 3, dilation 1 .* 0.5"),
        (nn.Conv1d(2, 2, 3, padding=1), [Candidate((4,), (1,))], "odd numbers; found 4"),
        (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), [Candidate((3,), (1,))], "circular"),
        (nn.Conv1d(2, 2, 3, padding=1), [], "empty"),
        (nn.Conv1d(2, 2, 3, padding=1), [Candidate((3,), (1,))] * 2, "more than once"),
        (nn.Conv1d(2, 2, 3, padding=1), [Candidate((3, 3), (1, 1))], "kernel_size"),
        (nn.Conv1d(2, 2, 3, padding=1), [(3, 1)], "Candidate"),
        (nn.ConvTranspose1d(2, 2, 3), [Candidate((3,), (1,))], "ConvTranspose1d"),
        (nn.Conv3d(2, 2, 3), [Candidate((3,), (1,))], "Conv3d"),
        (nn.Conv2d(2, 2, 3), [Candidate((3,), (1,))], "takes nn.Conv1d; found Conv2d"),
        (nn.LazyConv1d(2, 3), [Candidate((3,), (1,))], "parameter with a shape"),
    ],
)
def test_what_cannot_be_replaced_is_refused_by_name(conv: Any, candidates: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AggConv1d.of(conv, candidates)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_sizes": (3, 4)}, "kernel_sizes takes odd numbers; found 4"),
        ({"kernel_sizes": ()}, "kernel_sizes is empty"),
        ({"kernel_sizes": 3}, "kernel_sizes takes a list"),
        ({"kernel_sizes": (3, 3)}, "kernel_sizes has 3 more than once"),
        ({"kernel_sizes": (3, -1)}, "kernel_sizes takes whole numbers from 1 on; found -1"),
        ({"kernel_sizes": (3, 5.0)}, "found 5.0"),
        ({"kernel_sizes": ((3, 5),)}, "one number or 1"),
        ({"dilations": (0,)}, "dilations takes whole numbers from 1 on; found 0"),
        ({"dilations": (True,)}, "found True"),
        ({"dilations": []}, "dilations is empty"),
        ({"form": "quick"}, "form takes auto, results, weights, fft; found 'quick'"),
        ({"groups": 3}, "groups has to divide"),
        ({"groups": 0}, "groups takes"),
        ({"stride": 0}, "stride takes"),
        ({"stride": (1, 2)}, "stride takes one number or 1"),
        ({"padding": "valid"}, "padding takes"),
        ({"padding": -1}, "padding takes"),
        ({"in_channels": 0}, "in_channels takes"),
        ({"dtype": torch.int32}, "floating point"),
        ({"dtype": torch.complex64}, "floating point"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AggConv1d(**({"in_channels": 4, "out_channels": 4} | options))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 9), "batch, 4, length"),
        ((1, 3, 9), "found \\(1, 3, 9\\)"),
        ((1, 4, 9, 9), "found"),
        ((1, 4, 0), "no output"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AggConv1d(4, 4)(torch.randn(shape))


def test_an_input_without_an_output_and_one_of_another_dtype() -> None:
    with pytest.raises(UsageError, match="13 samples and padding 1"):
        AggConv1d(1, 1, (3, 5), (1, 3), padding=1)(torch.randn(1, 1, 10))
    with pytest.raises(UsageError, match="float64"):
        AggConv1d(1, 1, (3, 5), (1, 3))(torch.randn(1, 1, 10, dtype=torch.float64))
    agg = AggConv1d(1, 1, (3, 5), (1, 3))
    agg.given = torch.ones(3)
    with pytest.raises(UsageError, match="one share per candidate"):
        agg(torch.randn(1, 1, 10))
    with pytest.raises(UsageError, match="candidates 0 to 3; found 4"):
        agg.convolution(4)


def test_copies_and_files_have_all_but_the_graph() -> None:
    logits = torch.zeros(4, requires_grad=True)
    agg = AggConv2d(2, 3, (3, 5), (1, 2), form="fft").eval()
    agg.given = logits.softmax(0)
    x = torch.randn(2, 2, 6, 7)
    twin = copy.deepcopy(agg)
    assert twin.given is not None
    assert not twin.given.requires_grad
    torch.testing.assert_close(twin(x), agg(x))
    assert agg.given.requires_grad
    file = io.BytesIO()
    torch.save(agg, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), agg(x))
    other = AggConv2d(2, 3, (3, 5), (1, 2))
    other.load_state_dict(agg.state_dict())
    agg.given = None
    torch.testing.assert_close(other.eval()(x), agg(x))


def test_a_parameter_that_is_given_stays_its_owners() -> None:
    agg = AggConv1d(1, 1, (3, 5), (1,))
    names = set(agg.state_dict())
    agg.given = nn.Parameter(torch.ones(2) / 2)
    agg(torch.randn(1, 1, 9)).sum().backward()
    assert agg.given.grad is not None
    assert set(agg.state_dict()) == names == {"weights.0", "weights.1", "bias", "alpha"}
    agg.given = None
    assert agg.given is None
    assert "kernels 3, 5" in repr(agg)
