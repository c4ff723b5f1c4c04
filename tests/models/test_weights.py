"""Weights files: formats, nesting, and the refusal of whatever does not fit or would run code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor.errors import WeightsError
from compressor.models import fit_state_dict, read_state_dict


def make_net(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "args": {"lr": 0.1}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    ],
)
def test_wrapped_state_dicts_are_unwrapped(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    state = make_net().state_dict()
    torch.save(wrap(state), tmp_path / "w.pth")
    assert same(read_state_dict(tmp_path / "w.pth"), state)


def test_safetensors(tmp_path: Path) -> None:
    state = make_net().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert same(read_state_dict(tmp_path / "w.safetensors"), state)


class Bomb:
    """Unpickling this would run a command."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": make_net().state_dict(), "x": Bomb(str(tmp_path / "ran"))}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="safetensors") as caught:
        read_state_dict(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(make_net(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="refused"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_state_dict(tmp_path / name)


def test_missing_unknown_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_state_dict(tmp_path / "none.pt")
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match="suffix"):
        read_state_dict(tmp_path / "w.onnx")
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="no tensors"):
        read_state_dict(tmp_path / "w.pt")


def test_errors_list_keys_and_leave_the_model_unchanged() -> None:
    model = make_net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {**make_net().state_dict(), "strange.weight": torch.zeros(1), "0.weight": torch.zeros(2, 2)}
    del state["0.bias"]
    with pytest.raises(WeightsError) as caught:
        fit_state_dict(model, state, origin="'w.pt'")
    for part in ("1 missing (0.bias)", "1 unexpected (strange.weight)", "0.weight [2, 2] for [4, 1, 3, 3]"):
        assert part in str(caught.value)
    assert same(model.state_dict(), before)


def test_many_keys_are_counted_not_listed() -> None:
    state = {**make_net().state_dict(), **{f"extra{i}": torch.zeros(1) for i in range(50)}}
    with pytest.raises(WeightsError, match=r"50 unexpected .* and 46 more"):
        fit_state_dict(make_net(), state, origin="x")


def test_another_class_count_is_hinted_at() -> None:
    with pytest.raises(WeightsError, match="--num-classes 7"):
        fit_state_dict(make_net(3), make_net(7).state_dict(), origin="x")


def test_values_that_are_not_finite_are_refused() -> None:
    state = make_net().state_dict()
    state["0.bias"] = torch.tensor([0.0, float("nan"), 0.0, 0.0])
    with pytest.raises(WeightsError, match=r"0\.bias"):
        fit_state_dict(make_net(), state, origin="x")


def test_batch_counters_may_be_missing() -> None:
    model, other = make_net(), make_net()
    state = {key: value for key, value in other.state_dict().items() if "num_batches" not in key}
    assert fit_state_dict(model, state, origin="x") == ((), ())
    assert torch.equal(model[0].weight, other[0].weight)
