"""Files made from the graph of a larger network are those of an export, or there is an export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import exporters.formats.onnx
from exporters.errors import UnsupportedExportError
from exporters.example import Example
from exporters.formats.onnx import OnnxExporter
from exporters.formats.onnx_runtime import onnxruntime_run
from exporters.formats.onnx_template import read_template, write_template
from tests.exporters.export_models import TwoInputs

IMAGE, TEXT = torch.zeros(1, 3, 12, 12), torch.zeros(1, 7, 12)
PAIR = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3)


class Convnet(nn.Module):
    """Normalised and grouped convolutions, squeeze and excitation, a residual branch that may be gone, flattening."""

    def __init__(self, width: int = 16, groups: int = 4, branch: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.gate = nn.Conv2d(width, width, 1)
        if branch:
            self.branch = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
            self.scale = nn.Parameter(torch.full((width, 1, 1), 0.7))
        self.head = nn.Linear(width * 4, 5)
        randomise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        if hasattr(self, "branch"):
            x = torch.relu(x + self.branch(x) * self.scale)
        x = self.grouped(x)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 2), 1))


class Encoder(nn.Module):
    """Attention with any number and size of heads, and a feed-forward branch."""

    def __init__(self, heads: int = 4, size: int = 8, hidden: int = 24) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 3 * heads * size)
        self.out = nn.Linear(heads * size, 12)
        self.mlp = nn.Sequential(nn.Linear(12, hidden), nn.GELU(), nn.Linear(hidden, 12))
        randomise(self)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        a = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        x = x + self.out(a.transpose(1, 2).reshape(b, n, self.heads * self.size))
        return x + self.mlp(x)


class Features(nn.Module):
    """Its outputs have the widths of its layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.rest = nn.Conv2d(3, width, 3), nn.Conv2d(width, 2 * width, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return x, self.rest(x.relu())


class Tagger(nn.Module):
    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(12, hidden, batch_first=True), nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


def randomise(model: nn.Module) -> None:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("_mean", "_var")):
                buffer.uniform_(0.5, 2.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def made(whole: nn.Module, small: nn.Module, inputs: Any, folder: Path) -> list[Path]:
    """The files of ``small``: from the graph of ``whole``, and from its own trace."""
    write_template(whole, inputs, folder / "graph")
    files = [folder / "made.onnx", folder / "traced.onnx"]
    infos = [
        OnnxExporter().export(small, inputs, file, dynamic_axes="auto", template=template)
        for file, template in zip(files, (folder / "graph", None), strict=True)
    ]
    first, second = infos
    assert (first.dynamic_batch, first.opset_version, first.details, first.notes) == (
        second.dynamic_batch,
        second.opset_version,
        second.details,
        second.notes,
    )
    assert len(first.checks) == len(second.checks)
    assert sorted(p.name for p in folder.iterdir()) == ["graph", "made.onnx", "traced.onnx"]
    return files


def no_trace(*args: object, **kwargs: object) -> None:
    raise AssertionError("it was traced")


SAME: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Any]] = {
    "itself": (Convnet, Convnet, IMAGE),
    "width": (Convnet, lambda: Convnet(8), IMAGE),
    "groups": (Convnet, lambda: Convnet(12, groups=3), IMAGE),
    "no branch": (Convnet, lambda: Convnet(branch=False), IMAGE),
    "width, no branch": (Convnet, lambda: Convnet(10, groups=2, branch=False), IMAGE),
    "sizes of heads": (Encoder, lambda: Encoder(size=4), TEXT),
    "hidden units": (Encoder, lambda: Encoder(hidden=5), TEXT),
    "features": (Features, lambda: Features(3), IMAGE),
    "two inputs": (TwoInputs, TwoInputs, PAIR),
    "keyword inputs": (TwoInputs, TwoInputs, Example(PAIR[:1], {"weights": PAIR[1]})),
}


@pytest.mark.parametrize("case", SAME)
def test_a_network_of_the_same_graph_needs_no_trace(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, small, inputs = SAME[case]
    network = small().eval()
    files = made(whole(), network, inputs, tmp_path)
    ours, theirs = (onnx.load(file) for file in files)
    onnx.checker.check_model(ours, full_check=True)
    assert Counter(n.op_type for n in ours.graph.node) == Counter(n.op_type for n in theirs.graph.node)
    for mine, other in ((ours.graph.input, theirs.graph.input), (ours.graph.output, theirs.graph.output)):
        assert [(v.name, v.type) for v in mine] == [(v.name, v.type) for v in other]
    assert {entry.key for entry in ours.metadata_props} == {entry.key for entry in theirs.metadata_props}
    monkeypatch.setattr(exporters.formats.onnx, "translate", no_trace)
    OnnxExporter().export(network, inputs, tmp_path / "again.onnx", template=tmp_path / "graph")


OTHER: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Tensor]] = {
    "another forward": (Convnet, lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), IMAGE),
    "a weight of another meaning": (Convnet, lambda: Features(16), IMAGE),
    "numbers of heads": (Encoder, lambda: Encoder(heads=2), TEXT),
    "recurrent": (Tagger, lambda: Tagger(8), TEXT),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_network_of_another_graph_is_traced(case: str, tmp_path: Path) -> None:
    whole, small, inputs = OTHER[case]
    network = small().eval()
    files = made(whole(), network, inputs, tmp_path)
    value = torch.randn(2, *inputs.shape[1:])
    wanted = network(value)
    for file in files:
        found = onnxruntime_run(file)((value,))
        for want, have in zip(wanted if isinstance(wanted, tuple) else (wanted,), found, strict=True):
            np.testing.assert_allclose(have, want.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "no template", "text"])
def test_a_damaged_template_costs_only_time(damage: str, tmp_path: Path) -> None:
    graph = tmp_path / "graph"
    write_template(Convnet(), IMAGE, graph)
    if damage == "gone":
        graph.unlink()
    elif damage == "no template":
        OnnxExporter().export(Convnet(), IMAGE, graph)
    else:
        content = graph.read_bytes()
        graph.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"a" * 999}[damage])
    with pytest.raises(UnsupportedExportError, match="no graph to make files from"):
        read_template(graph)
    info = OnnxExporter().export(Convnet(8), IMAGE, tmp_path / "made.onnx", template=graph)
    assert info.rel_error is not None


def test_what_is_asked_for_by_name_is_not_taken_from_a_template(tmp_path: Path) -> None:
    write_template(Convnet(), IMAGE, tmp_path / "graph")
    info = OnnxExporter().export(
        Convnet(8), IMAGE, tmp_path / "made.onnx", template=tmp_path / "graph", opset_version=17, dynamic_batch=False
    )
    assert (info.opset_version, info.dynamic_batch) == (17, False)


def test_a_template_has_no_weights_and_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    model = Convnet(256)
    write_template(model, IMAGE, tmp_path / "graph")
    content = (tmp_path / "graph").read_bytes()
    assert len(content) < 0.1 * sum(p.nbytes for p in model.parameters())
    assert str(Path(torch.__file__).parent).encode() not in content
    assert read_template(tmp_path / "graph").weights.keys() <= dict(model.state_dict()).keys()
