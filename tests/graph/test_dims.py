"""Numbers that remember where they came from count like plain ones and can be traced back."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.graph.recording.dims import OPERATORS, Dim, FromAttribute, FromOperation, Scalar, origin_of, tracing

SOURCE = FromAttribute("encoder", "width")


def dim(value: int) -> Dim:
    return Dim(value, SOURCE)


def evaluated(number: Any, value: int) -> Any:
    """What the origin says the number would be if its source were ``value``."""
    if not isinstance(number, (Dim, Scalar)):
        return number
    if not isinstance(number.origin, FromOperation):
        return value
    origin = number.origin
    return OPERATORS[origin.operator](evaluated(origin.left, value), evaluated(origin.right, value))


operands = st.one_of(st.integers(1, 12), st.floats(0.25, 4.0))


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.sampled_from(["+", "-", "*", "/", "//"]), operands, st.booleans()), max_size=4),
)
def test_counts_like_plain_numbers_and_follows_its_source(n: int, program: list[tuple[str, Any, bool]]) -> None:
    plain: Any = n
    traced: Any = dim(n)
    for symbol, operand, swapped in program:
        if swapped and (plain == 0 or (isinstance(operand, float) and isinstance(traced, Dim))):
            continue  # Python asks the float on the left first, which takes an int for what it is worth
        operator = OPERATORS[symbol]
        plain = operator(operand, plain) if swapped else operator(plain, operand)
        traced = operator(operand, traced) if swapped else operator(traced, operand)
    assert traced == plain
    assert isinstance(traced, (Dim, Scalar))
    assert isinstance(traced, Dim) == isinstance(plain, int)
    assert evaluated(traced, n) == plain


def test_what_is_no_size_is_plain() -> None:
    for number in (dim(6) % 4, divmod(dim(6), 4)[0], dim(6) & 3, max(dim(6), 7), abs(dim(-6)), dim(6) == 6):
        assert not isinstance(number, (Dim, Scalar))


def test_squares_roots_and_signs_are_followed() -> None:
    with tracing():
        for number in (dim(16) ** -0.5, math.sqrt(dim(16)), 1 / math.sqrt(dim(16))):
            assert isinstance(number, Scalar)
            assert evaluated(number, 25) == pytest.approx({4.0: 5.0, 0.25: 0.2}[float.__float__(number)])
        assert isinstance(-dim(3), Dim)
    assert math.sqrt(4) == 2.0
    assert math.sqrt.__module__ == "math"


def test_the_square_root_is_put_back_after_an_error() -> None:
    before = math.sqrt
    with pytest.raises(KeyError), tracing():
        raise KeyError
    assert math.sqrt is before


@pytest.mark.parametrize("turn", [float, lambda d: int(d * 0.5), lambda d: round(d * 0.5), lambda d: math.floor(d / 3)])
def test_a_number_that_escapes_is_noted(turn: Any) -> None:
    with tracing() as escaped:
        turn(dim(8))
        assert [evaluated(number, 8) for number in escaped]
    with tracing() as escaped:
        assert not escaped


def test_use_as_an_integer_is_no_escape() -> None:
    with tracing() as escaped:
        assert list(range(dim(3))) == [0, 1, 2]
        assert torch.empty(dim(3), 2).shape == (3, 2)
        assert [10, 20, 30][dim(2)] == 30
        assert not escaped


@pytest.mark.parametrize("number", [dim(3), dim(3) * 0.5])
def test_copies_are_plain(number: Any) -> None:
    kind = int if isinstance(number, int) else float
    assert type(copy.deepcopy(number)) is kind
    assert type(pickle.loads(pickle.dumps(number))) is kind


def test_origin_of() -> None:
    assert origin_of(dim(3)) is SOURCE
    assert origin_of(3) is None


def test_other_operands_are_refused_as_by_plain_numbers() -> None:
    with pytest.raises(TypeError):
        dim(3) + "a"
    assert "ab" * dim(2) == "abab"
    assert torch.equal(torch.ones(2) * dim(3), torch.full((2,), 3.0))
