"""Reading from a stream and writing to it by index, and streams of nothing but what is used."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.nn import indexed_stream as stream
from compressor.nn.indexed_stream import Read, Write, tighten

INDICES = {"all": [0, 1, 2, 3, 4, 5], "first few": [0, 1, 2], "some": [1, 4, 5], "disordered": [0, 2, 1], "last": [5]}


def by_index(module: nn.Module, monkeypatch: pytest.MonkeyPatch, x: Tensor) -> Tensor:
    """What the operators that exports see give."""
    with monkeypatch.context() as patch:
        patch.setattr(stream, "is_watched", lambda x: True)
        found: Tensor = module(x)
    return found


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("make", [lambda dims: Read(6), lambda dims: Write(6, dims)], ids=["read", "write"])
def test_slices_do_what_indices_do(
    make: Callable[[int], nn.Module], index: str, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, entries = make(dims), INDICES[index]
    module.register_buffer("index", torch.tensor(entries))
    if isinstance(module, Write):
        module.scale = nn.Parameter(torch.randn(len(entries), *[1] * dims))
    channels = 6 if isinstance(module, Read) else len(entries)
    x = torch.randn(2, channels, *[3] * dims, requires_grad=True)
    found, expected = module(x), by_index(module, monkeypatch, x)
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    mine, theirs = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(mine, theirs)


def test_another_index_is_looked_at_anew() -> None:
    read = Read(4)
    x = torch.arange(4.0).reshape(1, 4, 1)
    assert torch.equal(read(x), x)
    again = copy.deepcopy(read)
    again.index.copy_(torch.tensor([3, 2, 1, 0]))
    assert torch.equal(again(x), x.flip(1))
    read.index = torch.tensor([2])
    assert read(x).item() == 2


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.read, self.write, self.head = Write(8, 1), Read(8), Write(8, 1), Read(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.write(self.read(x)[:, : len(self.write.index)].cos())
        y: Tensor = self.head(x)
        return y


@pytest.mark.parametrize("entries", [[[0, 1, 2], [0, 1], [0, 1], [0, 1, 2]], [[7, 2], [2, 3, 7], [6, 3], [7, 6, 2]]])
def test_a_tight_stream_has_what_is_used_and_nothing_else(entries: list[list[int]]) -> None:
    model = Network()
    for module, index in zip((model.stem, model.read, model.write, model.head), entries, strict=True):
        module.index = torch.tensor(index)
        if isinstance(module, Write):
            module.scale = nn.Parameter(torch.randn(len(index), 1))
    x = torch.randn(2, len(entries[0]), 5)
    expected = model(x)
    found = tighten(model, {"read.index": model.read.index})
    used = {i for index in entries for i in index}
    assert model.stem.channels == model.write.channels == len(used)
    for name, index in found.items():
        model.get_submodule(name.removesuffix(".index")).index = index
    assert sorted({int(i) for index in found.values() for i in index}) == list(range(len(used)))
    assert torch.equal(model(x), expected)
    assert tighten(nn.Linear(2, 2), {}) == {}
