"""``Graph.operators``: what a runtime runs, folded as runtimes fold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.graph import Graph, capture
from compressor.graph.operators import Operator


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.a = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, 8, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))
        x = self.depthwise(self.pool(x))
        return self.head(x.mean((2, 3)))


def _found(model: nn.Module, size: int = 16) -> tuple[Graph, list[Operator]]:
    graph = capture(model, torch.randn(1, 3, size, size))
    return graph, graph.operators


def test_what_runtimes_fold_is_one_operator() -> None:
    _, operators = _found(_Residual())
    assert [(o.kind, o.fused) for o in operators] == [
        ("conv2d", ("norm", "relu")),
        ("conv2d", ("norm", "relu")),
        ("conv2d", ("add", "relu")),
        ("max_pool2d", ()),
        ("conv2d", ()),
        ("global_pool", ()),
        ("linear", ()),
    ]


def test_channels_follow_the_axes_and_spatial_sizes_the_trace() -> None:
    _, (stem, a, b, pool, depthwise, mean, head) = _found(_Residual())
    assert (stem.channels_in.full, stem.channels_out.full) == (3, 8)
    assert not stem.channels_in.axes  # the image's channels stay
    assert a.channels_out.axes == b.channels_in.axes != ()
    assert (pool.kernel, pool.stride, pool.spatial, pool.out_positions) == ((3, 3), (2, 2), (16, 16), 64)
    assert depthwise.depthwise
    assert depthwise.one_axis
    assert mean.spatial == (8, 8)
    assert head.channels_out.full == 4
    assert not head.channels_out.axes


def test_a_removable_branch_takes_its_operators_along() -> None:
    graph, operators = _found(_Residual())
    assert len(graph.blocks) == 1
    assert [o.copies.gates for o in operators] == [(), (0,), (0,), (), (), (), ()]


def test_a_value_that_others_read_is_not_folded_over() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.cat([y, torch.relu(y)], 1)

    _, operators = _found(Twice())
    assert [(o.kind, o.fused) for o in operators] == [("conv2d", ()), ("relu", ()), ("concat", ())]
    assert operators[-1].channels_out.full == 8


def test_grouped_convolutions_count_channels_of_one_group_and_how_many_groups_there_are() -> None:
    _, operators = _found(nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 64, 3, groups=4), nn.Conv2d(64, 2, 1)))
    grouped = operators[1]
    assert (grouped.channels_in.full, grouped.channels_out.full, grouped.groups) == (8, 16, 4)
    assert grouped.copies.full == 1
    assert grouped.copies.axes


def test_arithmetic_on_weights_alone_is_no_operator() -> None:
    from torch.nn.utils.parametrizations import weight_norm

    _, operators = _found(nn.Sequential(weight_norm(nn.Conv2d(3, 8, 1)), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    assert [o.kind for o in operators] == ["conv2d", "conv2d"]


def test_attention_is_one_operator_with_its_heads() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(1, 10, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return x + self.out(y.transpose(1, 2).reshape(1, 10, 32))

    operators = capture(Attention(), torch.randn(1, 10, 32)).operators
    assert [o.kind for o in operators] == ["linear", "attention", "linear"]
    assert operators[1].attributes["heads"] == 4
    assert operators[1].channels_in.full == 8
    assert operators[2].fused == ("add",)
