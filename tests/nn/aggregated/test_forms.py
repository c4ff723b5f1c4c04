"""The three forms compute the mixture, with every gradient, whatever the shapes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from compressor.nn import AggConv1d, AggConv2d
from compressor.nn.aggregated import spans, spectra
from compressor.nn.aggregated.forms import FORMS
from tests.nn.aggregated.reference import Case, assert_same, cases, reference, results


@settings(max_examples=150)
@given(cases())
def test_all_forms_compute_the_same_values_and_gradients(case: Case) -> None:
    plain, x = case.module(), case.input()
    expected = results(reference(plain, x), plain, x, case.seed)
    for form in FORMS:
        agg, x = case.module(form), case.input()
        assert_same(results(agg(x), agg, x, case.seed), expected)
        assert agg.form_used == form


@settings(max_examples=40)
@given(cases())
def test_the_gradient_of_a_share_is_what_its_convolution_contributes(case: Case) -> None:
    for form in FORMS:
        agg, x = case.module(form), case.input()
        found = results(agg(x), agg, x, case.seed)["given"]
        torch.manual_seed(case.seed)
        with torch.no_grad():
            y = agg(x)
            gradient = torch.randn(y.shape, dtype=y.dtype)
            offset = 0 if agg.bias is None else agg.bias.reshape(-1, *[1] * case.axes)
            for i in range(len(agg.candidates)):
                agg.given = torch.eye(len(agg.candidates), dtype=torch.float64)[i]
                expected = (gradient * (agg(x) - offset)).sum()
                torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(64,), (16, 9)])
@pytest.mark.parametrize("groups", [1, 4, 16])
def test_pieces_are_put_together(
    monkeypatch: pytest.MonkeyPatch, form: str, size: tuple[int, ...], groups: int
) -> None:
    monkeypatch.setattr(spectra, "PIECE", 3000)
    options = {"in_channels": 16, "out_channels": 32, "kernel_sizes": (3, 5), "dilations": (1, 7), "groups": groups}
    case = Case(len(size), options, size, 16, 0)
    agg, x = case.module(form), case.input()
    plain, z = case.module(), case.input()
    assert_same(results(agg(x), agg, x, 0), results(reference(plain, z), plain, z, 0))


@pytest.mark.parametrize("form", FORMS)
def test_what_needs_no_gradient_gets_none(form: str) -> None:
    agg = AggConv2d(2, 3, (3, 5), (1, 2), form=form).eval()
    agg.requires_grad_(False)
    x = torch.randn(2, 2, 7, 6)
    assert not agg(x).requires_grad
    agg.weights[1].requires_grad_(True)
    agg(x).sum().backward()
    assert [weight.grad is None for weight in agg.weights] == [True, False, True, True]
    agg.requires_grad_(False)
    agg(x.requires_grad_()).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("groups", [1, 4])
def test_float32_is_as_exact_as_an_ordinary_convolution(form: str, groups: int) -> None:
    torch.manual_seed(0)
    agg = AggConv1d(4, 8, (3, 9), (1, 15), groups=groups, form=form).eval()
    x = torch.randn(3, 4, 50)
    y = agg(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), agg.double()(x.double()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_autocast_gives_what_a_convolution_gives(form: str, training: bool) -> None:
    torch.manual_seed(0)
    agg = AggConv2d(3, 4, (3, 5), (1, 3), form=form).train(training)
    agg.given = torch.rand(4, requires_grad=True)
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    exact = agg(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = agg(x)
        assert y.dtype == agg.convolution(0)(x).dtype == torch.bfloat16
        assert agg(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in (x, agg.given, *agg.weights))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_dtypes(form: str, kind: torch.dtype) -> None:
    agg = AggConv1d(2, 2, (3, 5), (1, 3), form=form, dtype=kind).eval()
    x = torch.randn(2, 2, 20, dtype=kind, requires_grad=True)
    y = agg(x)
    y.sum().backward()
    assert {y.dtype, x.grad.dtype, agg.weights[0].grad.dtype, agg.alpha.grad.dtype} == {kind}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_images_that_lie_channels_last(form: str, groups: int) -> None:
    options = {"in_channels": 4, "out_channels": 4, "kernel_sizes": (3, 5), "dilations": (1, 3), "groups": groups}
    case = Case(2, options, (7, 10), 3, 0)
    plain, z = case.module(form), case.input()
    agg, x = case.module(form), case.input().detach()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found = results(agg.to(memory_format=torch.channels_last)(x), agg, x, 0)
    assert_same(found, results(plain(z), plain, z, 0))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_compiled_it_computes_the_same(form: str) -> None:
    options = {"in_channels": 4, "out_channels": 4, "kernel_sizes": (3, 5), "dilations": (1, 3), "groups": 4}
    case = Case(2, options, (9, 6), 2, 0)
    plain, z = case.module(form), case.input()
    agg, x = case.module(form), case.input()
    torch.compiler.reset()
    assert_same(results(torch.compile(agg)(x), agg, x, 0), results(plain(z), plain, z, 0))


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_batch(form: str) -> None:
    assert AggConv1d(2, 3, (3, 5), (1, 2), form=form)(torch.randn(0, 2, 9)).shape == (0, 3, 9)


@pytest.mark.parametrize("form", FORMS)
def test_shares_of_zero_are_skipped_only_where_nothing_learns(form: str) -> None:
    agg = AggConv1d(2, 3, (3, 5), (1, 2), form=form).eval()
    agg.given = torch.tensor([0.0, 0, 0, 0])
    x = torch.randn(2, 2, 9)
    with torch.no_grad():
        torch.testing.assert_close(agg(x), agg.bias[:, None].expand(2, 3, 9))
        agg.given[2] = 1
        torch.testing.assert_close(agg(x), agg.convolution(2)(x))
    agg(x).sum().backward()
    assert all(weight.grad is not None for weight in agg.weights)


@pytest.mark.parametrize("least", [1, 2, 63, 64, 65, 1889, 4999])
def test_fast_lengths(least: int) -> None:
    length = spans.fast_length(least)
    assert length >= least
    assert length % 2 == 0
    assert length <= 2 ** math.ceil(math.log2(max(2, least)))
