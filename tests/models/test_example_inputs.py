"""A folder knows how to call its network again: keywords, nesting, numbers, ranges of tokens, masks."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import compressor
from compressor.errors import UsageError
from compressor.models import artifact
from compressor.models.example_inputs import describe_inputs, make_inputs
from exporters.example import Example


def again(example: Example) -> Example:
    return make_inputs(json.loads(json.dumps(describe_inputs(example), allow_nan=False)))


def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]))
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else draw(st.integers(1, 200)), shape, generator=generator).to(
        dtype
    )


LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), st.composite(tensors)()
)
TREE = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(args=st.lists(TREE, max_size=3), kwargs=st.dictionaries(st.text(min_size=1, max_size=3), TREE, max_size=2))
def test_structure_types_and_ranges_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    example = Example(tuple(args), kwargs)
    found = again(example)
    before, spec = pytree.tree_flatten((example.args, dict(example.kwargs)))
    after, other = pytree.tree_flatten((found.args, dict(found.kwargs)))
    assert spec == other
    for one, two in zip(before, after, strict=True):
        if not isinstance(one, Tensor):
            assert type(one) is type(two)
            assert one == two or (one != one and two != two)
            continue
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        if one.numel() and not one.is_floating_point():
            assert one.min() <= two.min()
            assert two.max() <= one.max()


def test_what_values_stand_for_is_kept() -> None:
    causal = torch.ones(9, 9).tril().bool()
    additive = torch.zeros(2, 5).masked_fill(torch.arange(5) > 2, float("-inf"))
    padding = (torch.arange(7) < torch.tensor([[3], [7]])).long()
    lengths = torch.tensor([7, 3])
    positive = torch.rand(2, 3, 4, 4) + 0.1
    found = again(Example((causal, additive), {"padding": padding, "lengths": lengths, "images": positive}))
    for key, value in (("padding", padding), ("lengths", lengths)):
        assert torch.equal(found.kwargs[key], value)
    assert torch.equal(found.args[0], causal)
    assert torch.equal(found.args[1], additive)
    assert (found.kwargs["images"] > 0).all()


def test_data_is_not_kept() -> None:
    tokens, image = torch.randint(5, 1000, (2, 40)), torch.randn(2, 3, 8, 8)
    found = again(Example((tokens, image)))
    assert not torch.equal(found.args[0], tokens)
    assert not torch.equal(found.args[1], image)
    assert found.args[0].min() >= 5


def test_other_batches() -> None:
    found = make_inputs(describe_inputs(Example((torch.zeros(2, 3),), {"m": torch.ones(2), "n": torch.ones(5)})), 4)
    assert [t.shape[0] for t in found.tensors] == [4, 4, 5]


def test_folders_of_earlier_versions() -> None:
    found = make_inputs([{"shape": [1, 3, 8, 8], "dtype": "float32"}, {"shape": [1, 4], "dtype": "int64"}], 2)
    assert [t.shape for t in found.tensors] == [(2, 3, 8, 8), (2, 4)]


@pytest.mark.parametrize(
    "damaged",
    [
        3,
        {"args": []},
        {"args": [{"x": 1}], "kwargs": []},
        {"args": [{"tensor": {"shape": [1], "dtype": "load"}}], "kwargs": []},
        {"args": [{"value": 1, "list": []}], "kwargs": []},
        [{"shape": [-1], "dtype": "int64"}],
    ],
)
def test_damaged_descriptions_are_refused(damaged: Any) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        make_inputs(damaged)


class Strange:
    pass


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Any, scale: Any = None, mask: Any = None) -> Tensor:
        x = x[0] if isinstance(x, list) else x["x"] if isinstance(x, dict) else x
        y = self.b(torch.relu(self.a(x)))
        y = y if mask is None else y * mask[:, None]
        return y if not isinstance(scale, int) else y * scale


X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X, None), {}),
        ((X, 2), {}),
        (([X],), {}),
        (({"x": X},), {}),
        ((), {"x": X, "mask": torch.tensor([1, 0])}),
        ((OrderedDict(x=X),), {"scale": True}),
        ((X, Strange()), {}),
    ],
)
def test_what_was_compressed_can_be_saved(args: Any, kwargs: dict[str, Any], tmp_path: Path) -> None:
    result = compressor.compress(Net(), args, {"flops": "50%"}, example_kwargs=kwargs)
    result.save(tmp_path)
    loaded = artifact.load(tmp_path, model=Net())
    assert torch.equal(loaded(*args, **kwargs), result.model(*args, **kwargs))
    if any(isinstance(arg, Strange) for arg in args):
        with pytest.raises(UsageError, match="Strange"):
            artifact.example_inputs(tmp_path)
        return
    found = artifact.example_inputs(tmp_path)
    assert found is not None
    assert found.run(loaded).shape == result.model(*args, **kwargs).shape
