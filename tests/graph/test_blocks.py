"""Which residual branches are found, what goes with them, and what does not count as one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from compressor.backbones.resnet_cifar import CifarResNet
from compressor.costs import Sizes, build
from compressor.graph import capture
from compressor.graph.graph import Graph


class Net(nn.Module):
    """A stem, a body of 8 channels that a test describes, a head."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = body
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


def graph_of(body: nn.Module, **options: object) -> Graph:
    return capture(Net(body).eval(), torch.randn(1, 3, 8, 8), **options)  # type: ignore[arg-type]


def conv() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))


class Branch(nn.Module):
    """``how`` spells the addition of a convolution's result to the input."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.f = conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(x)
        match self.how:
            case "x + y":
                return x + y
            case "y + x":
                return y + x
            case "x += y":
                x += y
                return x
            case "y += x":
                y += x
                return y
            case "torch.add":
                return torch.add(x, y)
            case "torch.add alpha":
                return torch.add(x, y, alpha=0.5)
            case "keywords":
                return torch.add(input=y, other=x)
            case "add_":
                return y.add_(x)
            case "relu":
                return torch.relu(x + y)
            case "dropout":
                return x + nn.functional.dropout(y, 0.1, self.training)
            case "alpha on x":
                return torch.add(y, x, alpha=0.5)
            case "other reader":
                return x + y + y.mean((2, 3), keepdim=True)
            case "broadcast":
                return x.mean((2, 3), keepdim=True) + y
            case "no branch":
                return x + x
            case "times":
                return x * y
        raise AssertionError(self.how)


@pytest.mark.parametrize(
    "how",
    ["x + y", "y + x", "x += y", "y += x", "torch.add", "torch.add alpha", "keywords", "add_", "relu", "dropout"],
)
def test_every_spelling_of_a_residual_addition_is_found(how: str) -> None:
    graph = graph_of(Branch(how))
    (block,) = graph.blocks
    assert block.name == "body"
    assert block.removal == {"body": "identity"}
    assert {n for n in block.parameters if not n.rpartition(".")[2].startswith(("running", "num"))} == {
        "body.f.0.weight", "body.f.0.bias", "body.f.1.weight", "body.f.1.bias"
    }  # fmt: skip


@pytest.mark.parametrize("how", ["other reader", "broadcast", "no branch", "times"])
def test_what_is_no_residual_branch_is_left_alone(how: str) -> None:
    assert graph_of(Branch(how)).blocks == []


def test_a_relu_after_the_sum_needs_a_stream_that_is_not_negative() -> None:
    class Signed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Branch("relu")

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x - 1.0)

    (block,) = graph_of(Signed()).blocks
    assert block.removal == {"body.block.f": "zero"}  # the ReLU stays


class Two(nn.Module):
    def __init__(self, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.f, self.g = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.f(x)
        return y + self.g(x if self.parallel else y)


@pytest.mark.parametrize("parallel", [False, True])
def test_two_branches_of_one_module_go_alone_or_with_the_module(parallel: bool) -> None:
    graph = graph_of(Two(parallel))
    assert [block.removal for block in graph.blocks] == [{"body.f": "zero"}, {"body.g": "zero"}]
    assert [block.inside for block in graph.blocks] == [(), ()]
    (collapse,) = graph.collapses
    assert (collapse.module, collapse.kind, collapse.blocks) == ("body", "identity", (0, 1))


class Nested(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.f = conv()
        self.inner = Nested(depth - 1) if depth else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(self.f(x))


def test_nested_blocks_have_nested_gates() -> None:
    graph = graph_of(Nested(2))
    inner, middle, outer = graph.blocks
    assert (inner.inside, middle.inside, outer.inside) == ((2, 1), (2,), ())
    gates = {product.place: product.gates for product in graph.products}
    assert gates["body.f.0"] == (2,)
    assert gates["body.inner.f.0"] == (2, 1)
    assert gates["body.inner.inner.f.0"] == (2, 1, 0)
    kept = graph.gates(torch.tensor([True, True, False]).numpy())
    assert kept.tolist() == [False, False, False]


def test_a_gate_takes_multiply_adds_parameters_and_memory_with_it() -> None:
    graph = graph_of(Branch("x + y"))
    full, closed = Sizes.full(graph), Sizes(graph, torch.ones(graph.n_units), torch.zeros(1))
    for name, saved in (("flops", 8 * 8 * 9 * 64), ("params", 8 * 8 * 9 + 8 + 16)):
        term = build(name, graph)
        assert float(term(full) - term(closed)) == saved
    memory = build("memory", graph)
    assert float(memory(closed)) < float(memory(full))


def test_gates_are_differentiable_sizes() -> None:
    graph = graph_of(Branch("x + y"))
    gates = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    cost = build("flops", graph)(Sizes(graph, torch.ones(graph.n_units), gates))
    cost.backward()
    assert gates.grad is not None
    assert float(gates.grad) == 8 * 8 * 9 * 64


def test_a_view_taken_before_a_change_in_place_sees_it() -> None:
    class Through(nn.Module):
        """The branch's result is changed through a view that something else made."""

        def __init__(self) -> None:
            super().__init__()
            self.f = conv()

        def forward(self, x: Tensor) -> Tensor:
            y = self.f(x)
            view = y[:, :4]
            z = x + y
            view.mul_(2.0)
            return z + y  # reads the change

    assert graph_of(Through()).blocks == []


def test_a_mask_written_in_place_inside_the_branch_belongs_to_it() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = conv()

        def forward(self, x: Tensor) -> Tensor:
            mask = x.new_ones(1, 1, 8, 8)
            mask[..., :4] = 0.0
            return x + self.f(x) * mask

    (block,) = graph_of(Written()).blocks
    assert block.removal == {"body": "identity"}


def test_shared_weights_stay_if_anything_else_uses_them() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.g = conv(), conv()
            self.g[0].weight = self.f[0].weight

        def forward(self, x: Tensor) -> Tensor:
            return self.g(x + self.f(x))

    (block,) = graph_of(Shared()).blocks
    assert "body.f.0.weight" not in block.parameters
    assert "body.f.0.bias" in block.parameters


def test_a_module_that_is_called_elsewhere_is_not_taken_out() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.g = conv(), conv()

        def forward(self, x: Tensor) -> Tensor:
            return self.f(x + self.f(x))

    assert graph_of(Again()).blocks == []


def test_work_outside_of_modules_cannot_be_taken_out() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight) + torch.relu(x - 1)

    assert graph_of(Functional()).blocks == []


def test_patterns_keep_blocks() -> None:
    assert len(graph_of(Two(False)).blocks) == 2
    assert [b.name for b in graph_of(Two(False), exclude=("body.f",)).blocks] == ["body.g"]
    assert [b.name for b in graph_of(Two(False), include=("body.f",)).blocks] == ["body.f"]
    assert graph_of(Two(False), exclude=("body",)).blocks == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 5),
        ("resnet50", 12),
        ("mobilenet_v2", 10),
        ("mobilenet_v3_small", 6),
        ("efficientnet_b0", 9),
        ("convnext_tiny", 18),
        ("regnet_y_400mf", 12),
        ("vgg11", 0),
        ("densenet121", 0),
    ],
)
def test_backbones_have_the_blocks_their_authors_drew(name: str, count: int) -> None:
    graph = capture(models.get_model(name).eval(), torch.randn(1, 3, 64, 64))
    assert len(graph.blocks) == count
    assert all(set(block.removal.values()) == {"identity"} for block in graph.blocks)


def test_the_padded_shortcut_of_a_cifar_resnet_is_no_block() -> None:
    graph = capture(CifarResNet(3).eval(), torch.randn(1, 3, 32, 32))
    assert [block.name for block in graph.blocks] == [
        "layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"
    ]  # fmt: skip


def test_groups_inside_a_block_are_named() -> None:
    graph = graph_of(Branch("x + y"))
    (block,) = graph.blocks
    assert block.groups == ()  # its channels are the stream's
    graph = capture(models.resnet18().eval(), torch.randn(1, 3, 64, 64))
    assert [graph.groups[g].name for g in graph.blocks[0].groups] == ["layer1.0.conv1"]
