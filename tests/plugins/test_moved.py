"""Former names of modules can be imported still, and lead to what is there now."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.plugins.moved import MOVED

ROOT = Path(__file__).parents[2]


def test_every_target_is_there_and_no_former_name_is() -> None:
    for name, targets in MOVED.items():
        place = ROOT.joinpath(*name.split("."))
        assert not place.with_suffix(".py").exists(), name
        assert not place.is_dir(), name
        for target in targets.split():
            importlib.import_module(target)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("compressor.latency.session", "TargetSettings"),
        ("compressor.config", "JobConfig"),
        ("compressor.config", "parse_budgets"),
        ("compressor.config", "DEFAULT_FOLDER"),
        ("compressor.search.project", "Projector"),
        ("compressor.artifact", "load_report"),
        ("exporters.onnx", "OnnxExporter"),
        ("profilers.simulated", "SimulatedDevice"),
    ],
)
def test_a_former_name_leads_there_with_a_warning(module: str, name: str) -> None:
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=f"{module} has moved to"):
        found = getattr(importlib.import_module(module), name)
    assert any(getattr(importlib.import_module(t), name, None) is found for t in MOVED[module].split())
    with pytest.raises(ImportError):
        exec(f"from {module} import no_such_name")


def test_packages_of_their_own_know_former_names_too() -> None:
    code = "from exporters.onnx import OnnxExporter; from profilers.torch_cpu import TorchCpu; print('there')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "there\n", done.stderr
