"""The operator set that is asked for is the one in the file, or the file is refused with those it can be had in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from exporters.errors import ExporterUsageError, UnsupportedExportError
from exporters.formats.onnx import OnnxExporter

IMAGE, SEQUENCE = torch.zeros(1, 3, 16, 16), torch.zeros(1, 6, 8)


class Moves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.norm(self.conv(x)))
        left, right = x.chunk(2, dim=1)
        x = nn.functional.interpolate(left * right, scale_factor=2, mode="nearest")
        return x.mean((2, 3)) + x.amax((2, 3)) + torch.logsumexp(x.flatten(2), -1) + x.sum(-1).sum(-1)


NETS: dict[str, tuple[Any, Tensor]] = {
    "moves": (Moves, IMAGE),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        IMAGE,
    ),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), SEQUENCE),
    "recurrent": (lambda: nn.GRU(8, 5, batch_first=True), SEQUENCE),
}


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("net", NETS)
def test_the_file_has_the_operator_set_asked_for(net: str, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, example = NETS[net]
    info = OnnxExporter().export(make().eval(), example, tmp_path / "m.onnx", opset_version=opset, batches=(2,))
    proto = onnx.load(str(info.path))
    onnx.checker.check_model(proto)
    assert [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")] == [opset]
    assert info.opset_version == opset
    assert info.rel_error is not None


def test_what_an_older_set_lacks_is_refused_with_those_that_have_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Mish()).eval()

    class Sampled(nn.Module):
        def forward(self, x: Tensor, grid: Tensor) -> Tensor:
            return nn.functional.grid_sample(x, grid, align_corners=False)

    with pytest.raises(UnsupportedExportError, match=r"opset 13.*GridSample.*can be had in 16"):
        OnnxExporter().export(
            Sampled(), (IMAGE, torch.zeros(1, 4, 4, 2)), tmp_path / "m.onnx", opset_version=13, dynamic_batch=False
        )
    info = OnnxExporter().export(model, IMAGE, tmp_path / "n.onnx", opset_version=17, batches=(2,))
    assert info.opset_version == 17


@pytest.mark.parametrize("wrong", [0, 5, 999, True, "17", 17.5])
def test_what_is_no_operator_set_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ExporterUsageError, match="whole number from"):
        OnnxExporter().export(nn.Linear(2, 2), torch.zeros(1, 2), tmp_path / "m.onnx", opset_version=wrong)
