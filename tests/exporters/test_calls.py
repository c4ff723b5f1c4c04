"""Whatever a forward takes is exported under its own names: keywords, nesting, numbers, None."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from exporters import registry
from exporters.errors import ExporterUsageError
from exporters.example import Example, as_example
from exporters.formats.onnx import OnnxExporter


class Takes(nn.Module):
    """Adds up what it is given, each with a weight of its own, so that no two inputs can be confused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(
        self, x: Any = None, scale: Any = None, *more: Tensor, mask: Any = None, opts: Any = None, **named: Any
    ):
        first = x[0] if isinstance(x, (list, tuple)) else x["x"] if isinstance(x, dict) else x
        y = self.a(first if first is not None else named["first"])
        for extra in (*more, *((opts["deep"] if opts else None) or []), *(v for k, v in named.items() if k != "first")):
            y = y * 2 + self.b(extra)
        if mask is not None:
            y = y + self.c(mask)
        return {"y": y if scale is None else y * scale, "twice": 2 * y}


def x(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))


CALLS: dict[str, tuple[Example, list[str]]] = {
    "one": (Example((x(),)), ["input"]),
    "keyword": (Example((), {"x": x()}), ["x"]),
    "two": (Example((x(), 2, x(1))), ["x", "more_0"]),
    "None": (Example((x(), None), {"mask": x(1)}), ["x", "mask"]),
    "numbers": (Example((x(), 3), {"mask": None}), ["x"]),
    "list": (Example(([x()],)), ["x_0"]),
    "dict": (Example(({"x": x()}, 0.5)), ["x_x"]),
    "nested": (Example((x(),), {"opts": {"deep": [x(1), x(2)], "flag": True}}), ["x", "opts_deep_0", "opts_deep_1"]),
    "caught": (Example((), {"first": x(), "second": x(1)}), ["first", "second"]),
    "out of order": (Example((), {"mask": x(), "scale": 2, "x": x(1)}), ["mask", "x"]),
}


@pytest.mark.parametrize("form", CALLS)
def test_onnx_files_take_what_the_forward_takes(form: str, tmp_path: Path) -> None:
    example, names = CALLS[form]
    model = Takes().eval()
    info = OnnxExporter().export(model, example, tmp_path / "m.onnx", batches=(3,))
    session = onnxruntime.InferenceSession(str(info.path))
    assert [value.name for value in session.get_inputs()] == names == list(example.names(model))
    other = example.with_tensors([t + 1 for t in example.tensors])
    found = session.run(["y"], dict(zip(names, (t.numpy() for t in other.tensors), strict=True)))[0]
    assert np.allclose(found, other.run(model)["y"].detach().numpy(), atol=1e-5)
    assert info.dynamic_batch
    assert any("Built into" in note for note in info.notes) == bool(example.constants(model))


@pytest.mark.parametrize("form", ["keyword", "nested", "numbers", "caught"])
def test_exported_programs_take_what_the_forward_takes(form: str, tmp_path: Path) -> None:
    from exporters.formats.torch_export import load_program

    example, _ = CALLS[form]
    model = Takes().eval()
    info = registry.get("torch-export").export(model, example, tmp_path / "m.pt2", batches=(3,))
    assert torch.allclose(example.run(load_program(info.path).module())["y"], example.run(model)["y"])


@pytest.mark.parametrize("form", CALLS)
def test_other_tensors_take_the_places_of_the_example_s(form: str) -> None:
    example, _ = CALLS[form]
    again = example.with_tensors([t * 2 for t in example.tensors])
    assert all(torch.equal(a * 2, b) for a, b in zip(example.tensors, again.tensors, strict=True))
    model = Takes()
    tags = example.mapped(model, lambda i: i)
    leaves = torch.utils._pytree.tree_leaves(tags, is_leaf=lambda leaf: leaf is None)
    assert sorted(leaf for leaf in leaves if leaf is not None) == list(range(len(example.tensors)))


@pytest.mark.parametrize("wrong", [(object(), x()), (), (3,), ({"x": None},)])
def test_calls_without_tensors_or_with_strangers_are_refused(wrong: Any) -> None:
    with pytest.raises(ExporterUsageError, match="example_inputs holds"):
        as_example(wrong)


def test_arguments_that_the_forward_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExporterUsageError, match="does not take"):
        OnnxExporter().export(nn.Linear(4, 3), Example((x(),), {"mask": x()}), tmp_path / "m.onnx")
