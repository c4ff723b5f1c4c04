"""Axes that are open besides the batch are open in the file, and compute the same at other sizes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from exporters import registry
from exporters.axes import read_axes
from exporters.errors import ExporterError, ExporterUsageError
from exporters.example import Example, as_example
from exporters.formats.onnx import OnnxExporter


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.mix, self.head = nn.Embedding(20, 8), nn.Conv1d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embedding(ids)
        if mask is not None:
            x = x * mask[..., None].to(x.dtype)
        return self.head(self.mix(x.transpose(1, 2)).transpose(1, 2))


class Table(nn.Module):
    """Knows one length only."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.table = nn.Embedding(20, 8), nn.Parameter(torch.randn(12, 8))

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids) + self.table


IDS = torch.randint(20, (2, 12), generator=torch.Generator().manual_seed(0))


def run(path: Path, **feeds: Tensor) -> np.ndarray:
    found: np.ndarray = onnxruntime.InferenceSession(str(path)).run(None, {k: v.numpy() for k, v in feeds.items()})[0]
    return found


@pytest.mark.parametrize("asked", ["auto", {"input": {1: "length"}}, {"ids": [1]}])
def test_sequences_run_at_other_lengths(asked: Any, tmp_path: Path) -> None:
    model = Tagger().eval()
    info = OnnxExporter().export(model, IDS, tmp_path / "m.onnx", dynamic_axes=asked, batches=(2,))
    assert list(info.details["open_axes"]) == ["input"]
    longer = torch.randint(20, (3, 31))
    assert np.allclose(run(info.path, input=longer), model(longer).detach().numpy(), atol=1e-5)
    assert len(info.checks) > 1


def test_axes_of_one_name_are_one_size(tmp_path: Path) -> None:
    model, example = Tagger().eval(), Example((), {"ids": IDS, "mask": torch.ones(2, 12, dtype=torch.long)})
    asked = {"ids": {1: "length"}, "mask": {1: "length"}}
    info = OnnxExporter().export(model, example, tmp_path / "m.onnx", dynamic_axes=asked, batches=(2,))
    shapes = [value.shape for value in onnxruntime.InferenceSession(str(info.path)).get_inputs()]
    assert shapes == [["batch", "length"], ["batch", "length"]]
    longer = {"ids": torch.randint(20, (3, 31)), "mask": torch.randint(2, (3, 31))}
    assert np.allclose(run(info.path, **longer), model(**longer).detach().numpy(), atol=1e-5)


def test_images_of_any_size(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    image = torch.zeros(1, 3, 12, 16)
    closed = OnnxExporter().export(model, image, tmp_path / "c.onnx", dynamic_axes="auto", batches=(2,))
    assert "open_axes" not in closed.details
    asked = {"input": {2: "height", -1: "width"}}
    info = OnnxExporter().export(model, image, tmp_path / "m.onnx", dynamic_axes=asked, batches=(2,))
    other = torch.randn(2, 3, 21, 18)
    assert np.allclose(run(info.path, input=other), model(other).detach().numpy(), atol=1e-5)


class Conversation(nn.Module):
    """Two sequences of one length, which a forward adds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(4, 6, 5, padding=2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (8, "same"), (1, 0)])
def test_of_signals_the_length_is_open_and_not_the_channels(
    kernel: int, padding: Any, check: bool, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, kernel, padding=padding), nn.ReLU(), nn.Conv1d(6, 2, 3)).eval()
    signal = torch.randn(2, 4, 20)
    info = OnnxExporter().export(model, signal, tmp_path / "m.onnx", dynamic_axes="auto", batches=(2,), check=check)
    assert list(info.details["open_axes"]["input"]) == ["2"]
    assert not info.notes
    longer = torch.randn(3, 4, 33)
    assert np.allclose(run(info.path, input=longer), model(longer).detach().numpy(), atol=1e-5)


def test_lengths_that_are_tied_stay_open_together(tmp_path: Path) -> None:
    model, example = Conversation().eval(), (torch.randn(2, 4, 20), torch.randn(2, 4, 20))
    info = OnnxExporter().export(model, example, tmp_path / "m.onnx", dynamic_axes="auto", batches=(2,))
    assert [list(opened) for opened in info.details["open_axes"].values()] == [["2"], ["2"]]
    assert len({opened["2"] for opened in info.details["open_axes"].values()}) == 1


@pytest.mark.parametrize("name", registry.names())
def test_signals_of_several_channels_are_written_in_every_format(name: str, tmp_path: Path) -> None:
    exporter = registry.get(name)
    if not exporter.is_available():
        pytest.skip(f"{name} is not installed")
    signal = torch.randn(2, 4, 20)
    takes = inspect.signature(exporter.export).parameters
    options = {"dynamic_axes": "auto", "calibration": [signal]}
    model = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 2, 3)).eval()
    asked = {option: value for option, value in options.items() if option in takes}
    info = exporter.export(model, signal, tmp_path / f"m{exporter.suffix}", **asked)
    assert info.path.is_file()
    assert "1" not in info.details.get("open_axes", {}).get("input", {})


def test_what_has_one_length_keeps_it_or_is_refused(tmp_path: Path) -> None:
    info = OnnxExporter().export(Table().eval(), IDS, tmp_path / "m.onnx", dynamic_axes="auto", batches=(2,))
    assert "open_axes" not in info.details
    with pytest.raises(ExporterError):
        OnnxExporter().export(Table().eval(), IDS, tmp_path / "n.onnx", dynamic_axes={"input": {1: "length"}})
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"nothing": {1: "n"}}, "no input 'nothing'"),
        ({"ids": {2: "n"}}, "no axis 2"),
        ({"ids": {1: "a b"}}, "needs a name"),
        ({"ids": {1: "n"}, "wide": {1: "n"}}, "one size"),
        ("everything", "dynamic_axes is"),
    ],
)
def test_axes_that_cannot_be_meant_are_refused(asked: Any, match: str) -> None:
    class Two(nn.Module):
        def forward(self, ids: Tensor, wide: Tensor) -> None: ...

    with pytest.raises(ExporterUsageError, match=match):
        read_axes(asked, Two(), as_example((IDS, torch.zeros(2, 7))))


def test_files_say_at_which_size_they_were_made(tmp_path: Path) -> None:
    from profilers.onnx_input import onnx_inputs

    info = OnnxExporter().export(Tagger().eval(), IDS, tmp_path / "m.onnx", dynamic_axes="auto", batches=(2,))
    assert onnx.load(str(info.path)).graph.input[0].type.tensor_type.shape.dim[1].dim_param
    assert onnx_inputs(info.path, None, 3)["input"].shape == (3, 12)


@pytest.mark.parametrize("name", ["torch-export", "openvino"])
def test_other_formats_open_axes_too(name: str, tmp_path: Path) -> None:
    exporter = registry.get(name)
    if not exporter.is_available():
        pytest.skip(f"{name} is not installed")
    asked = {"input": {1: "length"}}
    path = tmp_path / f"m{exporter.suffix}"
    info = exporter.export(Tagger().eval(), IDS, path, dynamic_axes=asked, batches=(2,))
    assert len(info.checks) == 3  # the example's length and two others
