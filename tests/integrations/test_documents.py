"""What the page on frameworks shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import compressor
from tests.integrations.trained import ROOT, data, network
from tests.own_loop.loops import EXAMPLE

pytestmark = pytest.mark.filterwarnings("ignore")


def shown(heading: str) -> str:
    """The block of Python under a heading."""
    text = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(block.splitlines()) <= 12
    return str(block)


def run(block: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(block, "docs/frameworks.md", "exec"), names)
    return names


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="the extra lightning is not installed")
    from tests.integrations.test_lightning import Lit

    monkeypatch.chdir(tmp_path)
    lit, before = Lit(), count(network())
    run(shown("Lightning"), {"lit": lit, "example_inputs": EXAMPLE, "train_loader": DataLoader(data(), batch_size=8)})
    assert count(lit.net) < 0.75 * before


def test_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    from tests.integrations.test_transformers import EXAMPLE as BATCH
    from tests.integrations.test_transformers import Sentences, bert

    monkeypatch.chdir(tmp_path)
    arguments = transformers.TrainingArguments(
        "trained", num_train_epochs=1, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
    )
    model = bert()
    given = {"compressor": compressor, "batch": BATCH, "arguments": arguments, "dataset": Sentences()}
    names = run(shown("Hugging Face Trainer"), {**given, "model": model, "fresh_model": bert})
    assert count(names["small"]) == count(model) < count(bert())


def test_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate", reason="the extra accelerate is not installed")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    model = network()
    given = {
        "accelerator": accelerate.Accelerator(cpu=True, gradient_accumulation_steps=1),
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": DataLoader(data(), batch_size=8),
        "total_steps": 5,
        "example_inputs": EXAMPLE,
        "criterion": nn.CrossEntropyLoss(),
    }
    assert count(run(shown("Accelerate"), given)["small"]) < 0.75 * count(network())
