"""Edits: each fits or is refused with nothing changed, survives JSON, and composes with those after it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import (
    EDITS,
    Edit,
    KeepResolution,
    MoveStride,
    PlacePooling,
    Remove,
    Renumber,
    ReplaceActivation,
    ReplaceConvolution,
    Resample,
    SetSizes,
    Slice,
    Work,
    edit_from_json,
)
from compressor.architecture.history import history
from compressor.architecture.rounds import composed, left_to_apply, whole
from compressor.errors import UsageError


class Net(nn.Module):
    """A stem, a strided stage with a shortcut, a residual branch and a head; (B, 3, 16, 16) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down, self.short = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1, 2)
        self.late = nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect")
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.head = nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.register_buffer("order", torch.tensor([3, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.down(x) + self.short(x)) * self.scale
        x = self.pool(self.late(x))
        x = x + self.branch(x)
        return self.head(x.mean((2, 3)))


IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def decided(*edits: Edit) -> Architecture:
    model = net()
    shapes = {name: list(t.shape) for name, t in (*model.named_parameters(), *model.named_buffers())}
    return Architecture("Net", shapes, edits)


def cut_branch(kept: list[int]) -> list[Edit]:
    """Channels of the stem go, and with them inputs of what reads it."""
    return [
        Slice("stem.weight", {0: kept}),
        Slice("stem.bias", {0: kept}),
        Slice("down.weight", {1: kept}),
        Slice("short.weight", {1: kept}),
        SetSizes("stem", {"out_channels": len(kept)}),
        SetSizes("down", {"in_channels": len(kept)}),
        SetSizes("short", {"in_channels": len(kept)}),
    ]


FITTING: dict[str, list[Edit]] = {
    "slice": cut_branch([0, 2, 5]),
    "remove": [Remove("branch.0", "identity"), Remove("branch.1", "zero")],
    "scalar": [Remove("scale", "scalar")],
    "renumber": [Renumber("order", [1, 2, 3])],
    "resample": [Resample("branch.1", ["branch.0"], [[8, 5], [8, 5]], "branch")],
    "smaller kernel": [ReplaceConvolution("stem", [1, 1], [1, 1])],
    "larger kernel": [ReplaceConvolution("branch.0", [7, 5], [1, 1])],
    "dilated": [ReplaceConvolution("late", [3, 3], [3, 2])],
    "stride": [MoveStride(["down", "short"], ["late"], [2, 2])],
    "stride to pooling": [MoveStride(["down", "short"], ["pool"], [2, 2])],
    "pooling": [PlacePooling("stem", [2, 2], "avg")],
    "pooling of an input": [PlacePooling("branch", [2, 2], "max", "input"), Remove("branch", "identity")],
    "activation": [ReplaceActivation("branch.1", "silu")],
    "activation in place": [ReplaceActivation("branch.1", "gelu"), ReplaceActivation("branch.1", "relu6")],
    "no stride": [KeepResolution(["down", "short"])],
    "pooling earlier": [KeepResolution(["down", "short"]), PlacePooling("late", [2, 2], "max", "input")],
    "pooling for a stride": [MoveStride(["down", "short"], ["pool"], [2, 2]), PlacePooling("stem", [1, 4])],
}

REFUSED: dict[str, tuple[Edit, str]] = {
    "no parameter": (Slice("nowhere.weight", {0: [0]}), "no such parameter"),
    "no axis": (Slice("stem.bias", {1: [0]}), "1 axes"),
    "descending": (Slice("stem.bias", {0: [3, 1]}), "ascend within 0 to 7"),
    "too far": (Slice("stem.bias", {0: [1, 8]}), "ascend within 0 to 7"),
    "no module to remove": (Remove("nowhere", "identity"), "no such module"),
    "the whole model": (Remove("", "identity"), "no such module"),
    "unknown stub": (Remove("branch", "os.system"), "replaces nothing"),
    "huge stub": (Remove("branch", "zero+999999999"), "replaces nothing"),
    "no parameter to remove": (Remove("stem", "scalar"), "no such parameter"),
    "growing": (SetSizes("stem", {"out_channels": 9}), "within 0 and 8"),
    "no size": (SetSizes("stem", {"padding_mode": 3}), "no size"),
    "method": (SetSizes("stem", {"forward": 3}), "no size"),
    "no row": (Renumber("stem.weight", [0]), "no such row"),
    "other positions": (Renumber("order", [0, 1, 2]), "not those"),
    "no module to resample": (Resample("branch", ["nowhere"], [[8, 4]]), "no module"),
    "more samples": (Resample("branch", ["branch.0"], [[8, 9]]), "no samples"),
    "no convolution": (ReplaceConvolution("head", [3], [1]), "no convolution"),
    "axes of a kernel": (ReplaceConvolution("stem", [3], [1]), "2 spatial axes"),
    "even kernel": (ReplaceConvolution("stem", [2, 2], [1, 1]), "even number"),
    "kernel of nothing": (ReplaceConvolution("stem", [0, 3], [1, 1]), "does not lie within"),
    "huge kernel": (ReplaceConvolution("stem", [2001, 3], [1, 1]), "does not lie within"),
    "no stride there": (MoveStride(["stem"], ["late"], [2, 2]), "has stride"),
    "stride there already": (MoveStride(["down"], ["short"], [2, 2]), "has stride"),
    "stride of a head": (MoveStride(["down", "short"], ["head"], [2, 2]), "Linear"),
    "stride along other axes": (MoveStride(["down", "short"], ["late"], [2]), "spatial axes"),
    "same place": (MoveStride(["down"], ["down"], [2, 2]), "others"),
    "pooling nowhere": (PlacePooling("nowhere", [2, 2]), "no such module"),
    "unknown pooling": (PlacePooling("stem", [2, 2], "median"), "max, avg"),
    "pooling of neither": (PlacePooling("stem", [2, 2], "max", "weight"), "input and output"),
    "keeping nothing": (KeepResolution([]), "needs modules"),
    "keeping it nowhere": (KeepResolution(["nowhere"]), "no module"),
    "keeping it twice": (KeepResolution(["down", "down"]), "each once"),
    "keeping what is kept": (KeepResolution(["stem"]), "no stride"),
    "keeping it in a head": (KeepResolution(["head"]), "Linear"),
    "no module to activate": (ReplaceActivation("nowhere", "silu"), "no such module"),
    "the model as an activation": (ReplaceActivation("", "silu"), "no such module"),
    "no activation": (ReplaceActivation("stem", "silu"), "Conv2d"),
    "unknown activation": (ReplaceActivation("branch.1", "os.system"), "unknown"),
    "no window": (PlacePooling("stem", [1, 1]), "no window"),
}


def again(edit: Edit) -> Edit:
    return edit_from_json(json.loads(json.dumps(edit.to_json())), "edit")


@pytest.mark.parametrize("name", FITTING)
def test_an_edit_applies_and_survives_json(name: str) -> None:
    architecture = decided(*FITTING[name])
    small = architecture.apply_(net())
    assert small(IMAGE).shape == (2, 5)
    document = json.loads(json.dumps(architecture.to_json()))
    twin = Architecture.from_json(document).apply_(net())
    assert torch.equal(small(IMAGE), twin(IMAGE))
    assert Architecture.from_json(document) == architecture
    assert [again(edit) for edit in FITTING[name]] == FITTING[name]
    assert history(small) == [architecture.to_json()]


@pytest.mark.parametrize("name", REFUSED)
def test_an_edit_that_does_not_fit_changes_nothing(name: str) -> None:
    edit, said = REFUSED[name]
    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(UsageError, match=said) as caught:
        decided(edit).apply_(model)
    assert edit.kind in str(caught.value)
    assert edit.subject[:20] in str(caught.value)
    assert torch.equal(model(IMAGE), before(IMAGE))
    assert {n: vars(m).keys() for n, m in model.named_modules()} == {
        n: vars(m).keys() for n, m in before.named_modules()
    }


def outcome(model: nn.Module) -> object:
    """What a network says, or why it does not: some edits by themselves leave sizes that do not meet."""
    try:
        return model(IMAGE).tolist()
    except (RuntimeError, ValueError) as error:
        return str(error)


def _attributes(model: nn.Module) -> dict[str, list[str]]:
    return {name: list(vars(module)) for name, module in model.named_modules()}


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_a_late_edit_that_does_not_fit_undoes_the_early_ones() -> None:
    model = net()
    with pytest.raises(UsageError, match="ascend"):
        decided(*cut_branch([0, 1, 2]), Slice("stem.bias", {0: [5]})).apply_(model)
    assert model.stem.weight.shape[0] == 8
    assert model.stem.out_channels == 8


@pytest.mark.parametrize("second", FITTING)
@pytest.mark.parametrize("first", FITTING)
def test_architectures_compose(first: str, second: str) -> None:
    """What two do, one after the other, one does."""
    early = decided(*FITTING[first])
    step = early.apply_(net())
    shapes = {name: list(t.shape) for name, t in (*step.named_parameters(), *step.named_buffers())}
    late = Architecture("Net", shapes, tuple(FITTING[second]))
    one = early.then(late)
    try:
        late.apply_(step)
    except UsageError as error:
        with pytest.raises(UsageError, match=str(error)[:40].replace("(", r"\(")):
            one.apply_(net())
        return
    whole_model = Architecture.from_json(json.loads(json.dumps(one.to_json()))).apply_(net())
    assert {n: t.shape for n, t in step.state_dict().items()} == {
        n: t.shape for n, t in whole_model.state_dict().items()
    }
    whole_model.load_state_dict(step.state_dict())
    if first == second == "slice":
        assert one.kept("stem.weight", 0) == [0, 5]
    assert outcome(step) == outcome(whole_model)
    assert whole(step, late) == one
    assert composed([early, late]) == one
    rest = left_to_apply(early.apply_(net()), one)
    assert rest is not None
    assert rest.edits == late.edits
    assert left_to_apply(whole_model, one) is None


def test_indices_of_rounds_are_those_of_the_first_original() -> None:
    early = decided(*cut_branch([1, 3, 4, 6]))
    late = decided(*cut_branch([0, 2]))
    one = early.then(late)
    assert one.kept("stem.weight", 0) == [1, 4]
    weight = net().stem.weight.detach()
    assert torch.equal(one.slice("stem.weight", weight), weight[[1, 4]])
    back = torch.zeros_like(weight)
    one.put_back_("stem.weight", back, weight[[1, 4]])
    assert torch.equal(back[[1, 4]], weight[[1, 4]])
    assert back.count_nonzero() == weight[[1, 4]].numel()


@pytest.mark.parametrize("kernel", [[1, 1], [5, 3], [3, 1]])
def test_a_replaced_kernel_goes_back_to_its_middle(kernel: list[int]) -> None:
    architecture = decided(ReplaceConvolution("stem", kernel, [1, 1]), Slice("stem.weight", {0: [2, 3]}))
    weight = net().stem.weight.detach()
    small = architecture.slice("stem.weight", weight)
    assert list(small.shape) == [2, 3, *kernel]
    back = weight.clone()
    architecture.put_back_("stem.weight", back, small)
    assert torch.equal(back, weight)
    assert architecture.kept("stem.weight", 3) == list(range(kernel[1]))


def test_a_larger_kernel_computes_the_same_at_first() -> None:
    for kernel in ([3, 3], [5, 5], [9, 7]):
        large = decided(ReplaceConvolution("stem", kernel, [1, 1])).apply_(net())
        torch.testing.assert_close(large(IMAGE), net()(IMAGE))


def test_tied_tensors_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    shapes = {"0.weight": [4, 4]}
    aliases = {"0.weight": ["0.weight", "1.weight"]}
    architecture = Architecture("Sequential", shapes, (Slice("0.weight", {0: [0, 2], 1: [0, 2]}),), aliases=aliases)
    small = architecture.apply_(model)
    assert small[0].weight is small[1].weight
    assert small[1].weight.shape == (2, 2)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "no edit"),
        ({}, "no edit"),
        ({"edit": 3}, "no edit"),
        ({"edit": "explode"}, "unknown kind"),
        ({"edit": "slice"}, "parameter"),
        ({"edit": "slice", "parameter": "a", "kept": {"x": [1]}}, "expected an axis"),
        ({"edit": "slice", "parameter": "a", "kept": {"0": ["b"]}}, "whole number"),
        ({"edit": "move_stride", "sources": ["a"], "targets": ["b"]}, "stride is missing"),
        ({"edit": "place_pooling", "module": 3, "size": [2]}, "should be text"),
    ],
)
def test_what_is_no_edit_is_told_where(document: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        edit_from_json(document, "architecture.edits[3]")
    with pytest.raises(UsageError, match=r"architecture\.edits\[3\]"):
        edit_from_json(document, "architecture.edits[3]")


def test_every_kind_is_tried_here() -> None:
    tried = {edit.kind for edits in FITTING.values() for edit in edits}
    assert tried == set(EDITS) == {edit.kind for edit, _ in REFUSED.values()}


def test_an_edit_of_one_s_own_lives_in_one_file_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EDITS._targets, "swap_activation", "tests.architecture.test_edits:SwapActivation")
    architecture = decided(SwapActivation("branch.1", "Tanh"))
    small = Architecture.from_json(json.loads(json.dumps(architecture.to_json()))).apply_(net())
    assert isinstance(small.branch[1], nn.Tanh)


@dataclass(frozen=True)
class SwapActivation(Edit):
    """An edit as another distribution may add one."""

    module: str
    by: str

    kind: ClassVar[str] = "swap_activation"

    def check(self, work: Work) -> None:
        if self.module not in work.modules:
            self.refuse("the model has no such module")

    def apply_(self, work: Work) -> None:
        make: Callable[[], nn.Module] = getattr(nn, self.by)
        work.put_module_(self.module, make())


def test_poolings_of_before_pool_the_output() -> None:
    old = edit_from_json({"edit": "place_pooling", "module": "stem", "size": [2, 2], "mode": "avg"}, "edit")
    assert old == PlacePooling("stem", [2, 2], "avg", "output")
