"""Operator sets and open axes from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import onnx
import pytest

from compressor.cli import main
from compressor.cli.options import OpenAxes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("auto", "auto"),
        ("none", None),
        ("input:2=length", {"input": {2: "length"}}),
        ("ids:1=n, mask:1=n,ids:2=m", {"ids": {1: "n", 2: "m"}, "mask": {1: "n"}}),
    ],
)
def test_open_axes_are_read(text: str, found: Any) -> None:
    assert OpenAxes().convert(text, None, None) == found


@pytest.mark.parametrize("text", ["", "input", "input:2", "input=2", ":1=a", "input:x=a", "input:1=a b", "input:-1=a"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="INPUT:AXIS=NAME"):
        OpenAxes().convert(text, None, None)


def test_a_file_as_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["export", "--model", "resnet20_cifar", "--weights", "none", "--to", "onnx", "--out", str(tmp_path)]
    assert main([*asked, "--opset", "17", "--dynamic-axes", "input:2=height,input:3=width"]) == 0
    proto = onnx.load(str(tmp_path / "resnet20_cifar.onnx"))
    assert [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")] == [17]
    assert [dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim][2:] == ["height", "width"]
    for wrong, said in (["--opset", "3"], "from 11"), (["--dynamic-axes", "x:9=n"], "no axis 9"):
        assert main([*asked, "--force", *wrong]) == 2
        assert said in capsys.readouterr().err
