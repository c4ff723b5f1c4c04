"""Which axis of the inputs is the batch, and the same inputs in other sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph import capture
from compressor.graph.inputs.batch import find_batch, other_sizes
from compressor.graph.inputs.input_axes import InputAxes, given_axes, variants


class TimeFirst(nn.Module):
    """Attention written out over the first axis: (time, batch, d)."""

    def __init__(self, d: int = 16) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).transpose(0, 1) for f in (self.q, self.k, self.v))
        return self.o((torch.softmax(q @ k.transpose(1, 2) / 4, -1) @ v).transpose(0, 1))


class Detector(nn.Module):
    """Takes a list of images (C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        mean = images[0].new_tensor([0.4, 0.5, 0.6])[:, None, None]
        return list(self.head(torch.relu(self.stem(torch.stack([x - mean for x in images])))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], batch_first: bool, bidirectional: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.cell = kind(12, 10, batch_first=batch_first, bidirectional=bidirectional)
        self.head = nn.Linear(20 if bidirectional else 10, 3)

    def forward(self, x: Tensor, *state: Any) -> Tensor:
        return self.head(self.cell(self.embed(x), *state)[0])


class Tokens(nn.Module):
    """An encoder of tokens, a batch of them or not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(50, 16), TimeFirst(), nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(self.mix(x[:, None] if x.dim() == 2 else x.transpose(0, 1)).mean(0))


class Shared(nn.Module):
    """A second input that is the same for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.place = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(5, 16)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x) + self.place(places)))


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        y = torch.relu(self.a(inputs["x"]) * inputs["weight"][..., None])
        return {"out": self.b(y), "loss": y.mean()}


class Squeezed(nn.Module):
    """Does something else for a single example."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)).squeeze())


class Routed(nn.Module):
    """Sends every row to one of two layers: values are needed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(6, 2), nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, 6)
        choice, out = self.gate(flat).argmax(-1), torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows = torch.nonzero(choice == number).flatten()
            out.index_add_(0, rows, expert(flat[rows]))
        return self.head(out.view_as(x))


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


def encoder(batch_first: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=batch_first)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], tuple[int | None, ...]]] = {
    "batch of images": (images, (randn(3, 3, 12, 12),), (0,)),
    "one image without a batch": (images, (randn(3, 12, 12),), (None,)),
    "list of images": (Detector, ([randn(3, 12, 12), randn(3, 12, 12)],), (None, None)),
    "time first": (TimeFirst, (randn(7, 4, 16),), (1,)),
    "time first, of one": (TimeFirst, (randn(7, 1, 16),), (None,)),
    "layer, time first": (lambda: encoder(False), (randn(7, 4, 16),), (1,)),
    "layer, batch first": (lambda: encoder(True), (randn(4, 7, 16),), (0,)),
    "LSTM, time first": (lambda: Recurrent(nn.LSTM, False, False), (randn(7, 4, 6),), (1,)),
    "GRU, batch first": (lambda: Recurrent(nn.GRU, True, True), (randn(4, 7, 6),), (0,)),
    "LSTM with a state": (
        lambda: Recurrent(nn.LSTM, False, False),
        (randn(7, 4, 6), (randn(1, 4, 10), randn(1, 4, 10))),
        (1, 1, 1),
    ),
    "LSTM without a batch": (lambda: Recurrent(nn.LSTM, True, False), (randn(7, 6),), (None,)),
    "tokens": (Tokens, (tokens(3, 9),), (0,)),
    "tokens without a batch": (Tokens, (tokens(9),), (None,)),
    "second input for all": (Shared, (randn(4, 7, 6), randn(7, 5)), (0, None)),
    "second input for each": (Shared, (randn(4, 6), randn(4, 5)), (0, 0)),
    "dictionary": (Keyed, ({"x": randn(4, 7, 6), "weight": randn(4, 7)},), (0, 0)),
    "one example is another thing": (Squeezed, (randn(4, 1, 6),), (None,)),
    "routed by value": (Routed, (randn(5, 3, 6),), (0,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_batch_is_found_by_what_the_model_does(name: str) -> None:
    make, inputs, expected = CASES[name]
    torch.manual_seed(0)
    graph = capture(make().eval(), inputs)
    assert graph.inputs is not None
    assert graph.inputs.batch == expected
    assert graph.input_shapes == [
        tuple(t.shape) for t in torch.utils._pytree.tree_leaves(graph.inputs.one((inputs, {})))
    ]


@pytest.mark.parametrize(
    ("make", "inputs", "expected"),
    [
        (images, randn(1, 3, 12, 12), (0,)),
        (TimeFirst, randn(7, 1, 16), (1,)),
        (lambda: encoder(True), randn(1, 7, 16), (0,)),
        (Tokens, tokens(9), (None,)),
        (images, randn(3, 12, 12), (None,)),
    ],
)
def test_the_batch_of_one_example_is_found_too(
    make: Callable[[], nn.Module], inputs: Tensor, expected: tuple[int | None, ...]
) -> None:
    assert find_batch(make().eval(), ((inputs,), {})).batch == expected


def test_outputs_that_do_not_depend_on_the_inputs_prove_nothing() -> None:
    model = TimeFirst().eval()
    nn.init.zeros_(model.o.weight)
    nn.init.zeros_(model.o.bias)
    assert capture(model, randn(7, 1, 16)).input_shapes == [(7, 1, 16)]


def test_costs_are_those_of_one_example_whatever_the_axis() -> None:
    first = capture(encoder(True), randn(5, 7, 16))
    second = capture(encoder(False), randn(7, 5, 16))
    single = capture(encoder(True), randn(1, 7, 16))
    full = [sum(p.coefficient * torch.tensor([len(a) for a in p.axes]).prod() for p in g.products)
            for g in (first, second, single)]  # fmt: skip
    assert full[0] == full[1] == full[2]


def test_without_a_batch_the_inputs_are_traced_as_they_are() -> None:
    model = TimeFirst()
    assert capture(model, randn(7, 4, 16), batch_axis=None).input_shapes == [(7, 4, 16)]
    assert capture(model, randn(7, 4, 16), batch_axis=1).input_shapes == [(7, 1, 16)]
    assert capture(model, randn(7, 4, 16), batch_axis=-2).input_shapes == [(7, 1, 16)]


@pytest.mark.parametrize(
    ("axis", "says"),
    [(0, "cannot be cut"), (2, "cannot be cut"), (3, "has shape"), ((0, 1), "entries"), ("first", "not known"),
     (True, "integers"), ((1.5,), "integers")],
)  # fmt: skip
def test_a_batch_axis_that_is_none_is_refused(axis: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        capture(TimeFirst(), randn(7, 4, 16), batch_axis=axis)


def test_named_axes_must_be_of_one_size() -> None:
    with pytest.raises(UsageError, match="one size"):
        given_axes(0, ((randn(4, 7, 6), randn(7, 5)), {}))
    assert given_axes((0, None), ((randn(4, 7, 6), randn(7, 5)), {})) == InputAxes((0, None))


def test_inputs_that_the_model_refuses_are_refused_though_one_example_would_run() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = (x @ x.transpose(1, 2)).masked_fill(mask == 0, -1e9).softmax(-1)
            return self.b(torch.relu(scores @ self.a(x)))

    with pytest.raises(UnsupportedModelError, match="raises on the example inputs"):
        capture(Masked(), (randn(10, 12, 8), torch.ones(10, 12)))


def test_variants_are_other_batches_and_lengths_that_the_model_takes() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.a = nn.Parameter(randn(12, 6)), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x + self.table[: x.shape[1]])

    model, inputs = Table(), ((randn(1, 5, 6),), {})
    shapes = {tuple(v.args[0].shape) for v in other_sizes(model, capture(model, inputs[0]), inputs)}
    assert shapes == {(2, 5, 6), (1, 6, 6), (1, 4, 6)}


def test_axes_of_equal_length_change_together_and_values_stay_in_range() -> None:
    inputs = ((tokens(2, 9), torch.ones(2, 9), torch.ones(9, 9)), {})
    found = list(variants(InputAxes((0, 0, None)), inputs, lambda _: True))
    longer = next(v for v in found if "10 instead of 9" in v.name)
    assert [tuple(t.shape) for t in longer.args] == [(2, 10), (2, 10), (10, 10)]
    assert set(longer.args[0].flatten().tolist()) <= set(inputs[0][0].flatten().tolist())
