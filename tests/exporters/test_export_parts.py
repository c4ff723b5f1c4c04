"""The pieces every exporter shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporters import registry
from exporters.base import Availability, Exporter, package_availability, require
from exporters.check import distance
from exporters.errors import ExporterError, ExporterUsageError, MissingPackageError
from exporters.files import staged
from exporters.inputs import batch_axes, flatten_outputs, model_precision, random_inputs
from exporters.quiet import first_line
from tests.exporters.export_models import Convnet, Refuses


def test_every_registered_format_keeps_the_interface() -> None:
    for name in registry.names():
        exporter = registry.get(name)
        assert isinstance(exporter, Exporter)
        assert exporter.name == name
        assert exporter.suffix.startswith(".")
        found = exporter.is_available()
        assert found.ok or found.reason


@pytest.mark.parametrize("name", registry.names())
def test_contract(name: str, tmp_path: Path) -> None:
    """What every format must do where it is available: leave the model alone, write whole files or none."""
    exporter = registry.get(name)
    path = tmp_path / f"model{exporter.suffix}"
    if not exporter.is_available():
        with pytest.raises(MissingPackageError, match="cannot be used here"):
            exporter.export(Convnet(), torch.zeros(1, 3, 12, 12), path)
        return
    model = Convnet().train()
    needed: dict[str, Any] = {"calibration": [torch.randn(8, 3, 12, 12)]} if name == "onnx-int8" else {}
    info = exporter.export(model, torch.zeros(1, 3, 12, 12), path, **needed)
    assert model.training
    assert info.format == name
    assert info.path == info.files[0] == path
    assert info.bytes == sum(file.stat().st_size for file in info.files)
    assert {file.name for file in info.files} == {file.name for file in tmp_path.iterdir()}
    assert info.checks or info.notes
    assert all(check.rel_error <= (info.tolerance or 0) for check in info.checks)
    json.dumps(info.to_json())
    before = path.read_bytes()
    with pytest.raises(ExporterError):
        exporter.export(Refuses(), torch.zeros(1, 3, 12, 12), path, **needed)
    assert path.read_bytes() == before


def test_unknown_format_lists_the_closest() -> None:
    with pytest.raises(ExporterUsageError, match="Did you mean onnx") as caught:
        registry.get("onxx")
    assert "torch-export" in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_package_names_the_extra() -> None:
    found = package_availability("no_such_module", package="nothing", extra="openvino")
    assert not found
    with pytest.raises(MissingPackageError, match=r"compressor\[openvino\]"):
        require(found, "OpenVINO")
    require(Availability(True), "anything")


def test_random_inputs_are_repeatable_never_zero_and_keep_types() -> None:
    example = (torch.zeros(1, 3, 8, 8), torch.tensor([[2, 5]]), torch.zeros(1, dtype=torch.float16))
    first, again = random_inputs(example, 5, seed=3), random_inputs(example, 5, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [tuple(value.shape) for value in first] == [(5, 3, 8, 8), (5, 2), (5,)]
    assert [value.dtype for value in first] == [torch.float32, torch.int64, torch.float16]
    assert (first[0] != 0).all()
    assert set(first[1].flatten().tolist()) <= {2, 5}
    assert not torch.equal(first[0], random_inputs(example, 5, seed=4)[0])


def test_only_axes_as_long_as_the_first_are_batches() -> None:
    assert batch_axes((torch.zeros(4, 2), torch.zeros(4), torch.zeros(3, 4), torch.tensor(1.0))) == (
        True,
        True,
        False,
        False,
    )
    assert batch_axes((torch.tensor(1.0),)) == (False,)


def test_flatten_skips_what_is_no_tensor() -> None:
    value = torch.ones(1)
    assert [name for name, _ in flatten_outputs({"a": value, "b": None, "c": [3, value]})] == ["a", "c_1"]


def test_distance_is_relative_to_the_largest_output() -> None:
    assert distance(np.array([0.0, -4.0]), np.array([1.0, -4.0])) == (1.0, 0.25)
    assert distance(np.array([1.0]), np.array([np.nan])) == (float("inf"), float("inf"))
    assert distance(np.zeros(2), np.zeros(2)) == (0.0, 0.0)
    assert distance(np.zeros(0), np.zeros(0)) == (0.0, 0.0)


def test_precision_of_a_model() -> None:
    assert model_precision(nn.Linear(2, 2)) == "fp32"
    assert model_precision(nn.Linear(2, 2).half()) == "fp16"
    assert model_precision(nn.Linear(2, 2).bfloat16()) == "bf16"


def test_staged_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    with staged(target) as path:
        path.write_text("main")
        (path.parent / "file.bin.data").write_text("more")
        assert not target.exists()
    assert sorted(file.name for file in target.parent.iterdir()) == ["file.bin", "file.bin.data"]
    with pytest.raises(ExporterError, match="Cannot write"), staged(target) as path:
        path.rename(path.with_name("never written"))
    assert target.read_text() == "main"
    assert len(list(target.parent.iterdir())) == 2


def test_staging_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExporterError, match="Cannot write"), staged(tmp_path / "file" / "model.onnx"):
        pass


def test_first_line_finds_the_cause() -> None:
    wrapper = RuntimeError("the wrapper")
    wrapper.__cause__ = ValueError("the cause\nand more")
    assert first_line(wrapper) == "the cause"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 999))) == 200
