"""Arguments and options: what they take, and that everything else is refused before any work, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import compressor
from compressor.errors import UsageError
from compressor.options import Flag, Number, OneOf, Options, Patterns, SomeOf, Whole, option, read, table
from compressor.search import METHODS
from profilers.errors import ProfilerError

CONFIGS = {name: METHODS.get(name).config for name in METHODS}
X = torch.randn(1, 8)
JUNK = [
    *(True, None, "many", "", "x" * 9999, b"4", [], [3], {}, {"a": 1}, (), object(), int, lambda: 3, 3j, X),
    *(math.nan, math.inf, -math.inf, -1, -0.5, 0, 0.5, 1, 3, 2.0, 10**30, -(10**30), 10**5000, np.nan, np.int64(7)),
]


class NeverRun(nn.Module):
    """Work would begin with its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("work has begun")


class NeverRead:
    """Batches that nobody may ask for."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("work has begun")


def call(function: Any = compressor.compress, **arguments: Any) -> Any:
    given_ = {"budgets": {"flops": "50%"}, "example_inputs": X, **arguments}
    if function is compressor.prepare:
        given_.setdefault("total_steps", 5)
    return function(arguments.get("model", NeverRun()), **{k: v for k, v in given_.items() if k != "model"})


def refusal(attempt: Callable[[], object]) -> str | None:
    """What an attempt is refused with, if it is."""
    try:
        attempt()
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: f"{type(junk).__name__}")
@pytest.mark.parametrize("method", CONFIGS)
def test_any_value_of_any_option_is_taken_or_refused_by_name(method: str, junk: object) -> None:
    for described in CONFIGS[method].described():
        said = refusal(lambda name=described.name: METHODS.get(method).read({name: junk}))
        assert said is None or described.name in said or described.name == "learn"
        assert len(said or "") < 500
        assert "\n" not in (said or "")


@pytest.mark.parametrize("method", CONFIGS)
def test_options_by_default_are_what_they_take(method: str) -> None:
    for described in CONFIGS[method].described():
        assert described.takes
        assert described.doc.endswith(".")
        with pytest.raises(UsageError, match=f"no option {described.name}x. Did you mean"):
            METHODS.get(method).read({f"{described.name}x": 1})


BAD = [
    ("exclude", 3),
    ("exclude", [3]),
    ("exclude", {"a": 1}),
    ("include", [""]),
    ("keep_outputs", [None]),
    ("lr", -1),
    ("lr", 0),
    ("lr", math.nan),
    ("lr", "fast"),
    ("seed", 2**70),
    ("seed", -1),
    ("seed", 1.0),
    ("round_to", 0),
    ("round_to", 2.5),
    ("distill", 3),
    ("distill", -0.1),
    ("batch_size", 0),
    ("batch_size", True),
    ("search_epochs", -1),
    ("search_epochs", 1.5),
    ("finetune_epochs", True),
    ("finetune_epochs", "x"),
    ("loss_fn", "cross entropy"),
    ("loss_fn", nn.Linear),
    ("target", 3),
    ("target", "onnxruntime-gpu9"),
    ("lut", 3),
    ("search", 3),
    ("search", "fig"),
    ("search", ""),
    ("importance", "l3"),
    ("importance", 3),
    ("options", "depth"),
    ("options", {"importances": "l1"}),
    ("options", {3: 4}),
    ("budgets", None),
    ("budgets", "50%"),
    ("budgets", {}),
    ("budgets", {"flops": math.nan}),
    ("budgets", {"flops": 10**400}),
    ("budgets", {"flops": [1]}),
    ("budgets", {None: "50%"}),
    ("budgets", {"flops": "9" * 100_000}),
    ("budgets", {"latency": "50%"}),
    ("example_inputs", None),
    ("example_kwargs", 3),
    ("example_kwargs", {3: 4}),
    ("model", "resnet18"),
    ("model", nn.Linear),
    ("benchmark", "yes"),
    ("verbose", 2),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("data", [False, True])
def test_bad_arguments_are_found_before_any_work(name: str, value: object, data: bool) -> None:
    rest = {"data": NeverRead(), "search": "oneshot"} if data else {}
    with pytest.raises((UsageError, ProfilerError)) as caught:
        call(**{**rest, name: value})
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [(n, v) for n, v in BAD if n in {"exclude", "include", "round_to", "search", "options", "budgets", "model", "lut"}]
    + [("total_steps", 1.5), ("total_steps", True), ("total_steps", 0), ("total_steps", "many")],
    ids=lambda value: repr(value)[:20],
)
def test_so_are_those_of_a_loop_of_ones_own(name: str, value: object) -> None:
    with pytest.raises(UsageError):
        call(compressor.prepare, **{name: value})


@pytest.mark.parametrize(
    "arguments",
    [
        {"search": "figs"},
        {"search": "dnarch"},
        {"importance": "taylor"},
        {"options": {"importance": "taylor"}},
        {"finetune_epochs": 2},
    ],
)
def test_what_needs_data_is_refused_without(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="data"):
        call(**arguments)


@pytest.mark.parametrize("data", [3, [], (1, 2, 3, 4), {"val": []}, {"train": [], "extra": 1}, iter([]), "digits"])
def test_data_that_is_none_is_refused(data: object) -> None:
    with pytest.raises(UsageError):
        call(data=data)


def test_figs_has_no_importance_to_rank_by() -> None:
    with pytest.raises(UsageError, match="ranks by nothing"):
        call(search="figs", importance="l1", data=NeverRead())


def test_a_text_is_one_pattern() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    found = compressor.compress(model, X, {"params": "70%"}, exclude="0*").model
    assert found[0].weight.shape == (32, 8)  # type: ignore[union-attr,index]
    again = compressor.compress(model, X, {"params": "70%"}, exclude=["0*"]).model
    assert [p.shape for p in again.parameters()] == [p.shape for p in found.parameters()]
    with pytest.raises(UsageError, match="pattern 'b\\*'"):
        compressor.compress(model, X, {"params": "70%"}, exclude="b*")


def test_numbers_of_numpy_are_numbers() -> None:
    assert read("n", Whole(1), np.int32(4)) == 4
    assert read("x", Number(above=0), np.float32(0.5)) == 0.5
    for bad in (np.float64("nan"), np.bool_(True), np.array([3])):
        with pytest.raises(UsageError, match="must be a number above zero"):
            read("x", Number(above=0), bad)


KINDS = [Whole(2, 9), Number(above=0, most=1), Flag(), OneOf(("a", "b")), SomeOf(("a", "b")), Patterns()]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(KINDS), ANYTHING)
def test_what_a_kind_reads_it_reads_again(kind: Any, value: Any) -> None:
    said = refusal(lambda: read("it", kind, value))
    if said is not None:
        assert said.startswith("it must be ")
        return
    found = read("it", kind, value)
    assert read("it", kind, found) == found


def test_options_are_read_where_they_are_made() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Some(Options):
        owner = "some"
        size: int = option(3, Whole(1), "How many.")
        name: str | None = option(None, OneOf(("left", "right")), "Which.")

    assert Some.from_options({}) == Some(3, None)
    assert [(d.name, d.default) for d in Some.described()] == [("size", "3"), ("name", "")]
    with pytest.raises(UsageError, match=r"one of left, right, not 'rigth'\. Did you mean right"):
        Some(name="rigth")
    with pytest.raises(UsageError, match="size must be a whole number of at least 1, not None"):
        Some(size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", CONFIGS)
def test_the_docs_have_every_option(method: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text(encoding="utf-8")
    assert table(CONFIGS[method].described()) in page, "write compressor.options.table(...) into it"
