"""A folder that the program wrote before architectures were edits still loads, and can go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import compressor
from compressor.architecture.architecture import Architecture
from compressor.errors import UsageError
from compressor.models import artifact
from tests.models.old_networks import everything

FOLDER = Path(__file__).with_name("schema_1")


def test_it_loads_and_computes_the_same(tmp_path: Path) -> None:
    example = load_file(FOLDER / "example.safetensors")
    model = compressor.load(FOLDER, model=everything())
    torch.testing.assert_close(model(example["x"]), example["y"])
    kinds = {edit.kind for edit in artifact.load_architecture(FOLDER).edits}
    assert kinds == {"slice", "remove", "set_sizes", "renumber", "resample"}
    result = compressor.compress(model, example["x"], {"flops": "70%"}, search="oneshot")
    result.save(tmp_path)
    again = compressor.load(tmp_path, model=everything())
    torch.testing.assert_close(again(example["x"]), result.model(example["x"]))
    assert json.loads((tmp_path / "architecture.json").read_text())["schema_version"] == 2


def test_its_report_is_read() -> None:
    assert artifact.load_report(FOLDER).model == "everything"


def test_a_round_of_it_applies_to_what_the_first_one_made() -> None:
    rounds = json.loads((FOLDER / "architecture.json").read_text())["architectures"]
    first = Architecture.from_json(rounds[0]).apply_(everything())
    model = compressor.load(FOLDER, model=first)
    example = load_file(FOLDER / "example.safetensors")
    torch.testing.assert_close(model(example["x"]), example["y"])


@pytest.mark.parametrize("version", [3, 99])
def test_a_newer_folder_names_the_version_that_reads_it(version: int, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    shutil.copytree(FOLDER, folder)
    path = folder / "architecture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version, "compressor": "7.1.0"}))
    with pytest.raises(UsageError, match=r"written by compressor 7\.1\.0; this is"):
        compressor.load(folder, model=everything())
