"""Weights are found in what trainers save, whatever lies beside them, and nothing in a file is run."""

from __future__ import annotations

import argparse
import os
import pathlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UsageError, WeightsError
from compressor.models import load_model, read_state_dict, resolve

State = dict[str, Tensor]


class Hyper(dict[str, Any]):
    """As Lightning keeps hyperparameters."""


class Settings:
    def __init__(self) -> None:
        self.lr, self.path = 0.1, pathlib.PurePosixPath("/data")


def make_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def other(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


def lightning(state: State, prefix: str = "model.") -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 7,
        "pytorch-lightning_version": "2.0",
        "state_dict": {**prefixed(prefix, state), "loss.weight": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4, 1, 3, 3)}}, "param_groups": []}],
        "callbacks": {"best": Settings()},
        "hparams_name": "kwargs",
        "hyper_parameters": Hyper(lr=0.1, args=argparse.Namespace(a=1)),
        "score": np.float64(0.5),
    }


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "lightning": lightning,
    "lightning net": lambda s: lightning(s, "net."),
    "lightning compiled": lambda s: lightning(s, "model._orig_mod."),
    "lightning with its average": lambda s: {
        "state_dict": {**prefixed("model.", s), **prefixed("model_ema.module.", other(s))}
    },
    "references": lambda s: {"model": s, "model_ema": other(s), "optimizer": {}, "args": argparse.Namespace(lr=0.1)},
    "timm": lambda s: {"arch": "x", "state_dict": s, "state_dict_ema": other(s), "args": argparse.Namespace()},
    "only the average": lambda s: {"ema_state_dict": {"n_averaged": torch.tensor(3), **prefixed("module.", s)}},
    "trainer": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}, "loss": torch.tensor(0.1)},
    "deep": lambda s: {"checkpoint": {"network": prefixed("backbone.encoder.", s)}},
    "wrapped twice": lambda s: prefixed("_orig_mod.module.", s),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found(form: str, tmp_path: Path) -> None:
    state = make_net().state_dict()
    torch.save(FORMS[form](state), tmp_path / "w.ckpt")
    found = read_state_dict(tmp_path / "w.ckpt", make_net())
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_two_networks_that_fit_are_not_guessed_between(tmp_path: Path) -> None:
    state = make_net().state_dict()
    torch.save({"state_dict": {**prefixed("one.", state), **prefixed("two.", other(state))}}, tmp_path / "w.ckpt")
    with pytest.raises(WeightsError, match=r"several networks.*state_dict\.one.*state_dict\.two"):
        read_state_dict(tmp_path / "w.ckpt", make_net())


class Runs:
    def __init__(self, path: Path, call: Any) -> None:
        self.path, self.call = path, call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, (str(self.path),)


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval])
def test_checkpoints_that_call_functions_are_refused(call: Any, tmp_path: Path) -> None:
    content = {**lightning(make_net().state_dict()), "x": Runs(tmp_path / "ran", call)}
    torch.save(content, tmp_path / "w.ckpt")
    with pytest.raises(WeightsError, match="refused"):
        read_state_dict(tmp_path / "w.ckpt", make_net())
    assert not (tmp_path / "ran").exists()


def test_classes_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(Settings, "__setstate__", lambda self, state: made.append(state), raising=False)
    torch.save(lightning(make_net().state_dict()), tmp_path / "w.ckpt")
    read_state_dict(tmp_path / "w.ckpt", make_net())
    assert not made


def test_a_mismatch_lists_what_is_missing_under_the_best_prefix(tmp_path: Path) -> None:
    from compressor.models import fit_state_dict

    state = make_net().state_dict()
    del state["3.bias"]
    torch.save(lightning(state), tmp_path / "w.ckpt")
    with pytest.raises(WeightsError, match=r"1 missing \(3\.bias\)\."):
        fit_state_dict(make_net(), read_state_dict(tmp_path / "w.ckpt", make_net()), origin="'w.ckpt'")


def test_through_the_loader(tmp_path: Path) -> None:
    state = load_model("resnet20_cifar", weights="none", seed=3).model.state_dict()
    torch.save(lightning(state), tmp_path / "w.ckpt")
    found = load_model("resnet20_cifar", weights=str(tmp_path / "w.ckpt"))
    assert found.weights.pretrained
    assert all(torch.equal(value, state[key]) for key, value in found.model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_files_that_hold_no_modules_are_no_models(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "scripted.pt"))
    torch.save(make_net().state_dict(), tmp_path / "state.pt")
    for name in ("m.onnx", "m.pt2", "m.xml", "m.bin", "m.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    words = {
        "scripted.pt": "TorchScript",
        "state.pt": "checkpoint.*--weights",
        "m.onnx": "ONNX",
        "m.pt2": "exported program",
        "m.xml": "OpenVINO",
        "m.bin": "a file",
        "m.safetensors": "weights file.*--weights",
    }
    for name, match in words.items():
        with pytest.raises(UsageError, match=match):
            resolve(str(tmp_path / name))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_state_dict(tmp_path / "scripted.pt")


def test_archives_that_unpack_to_much_more_are_refused_before_they_are_read(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"weight": torch.zeros(1 << 22)}, plain)  # 16 MB
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < 1 << 17
    with pytest.raises(WeightsError, match="unpacks to"):
        read_state_dict(packed)
    assert read_state_dict(plain)["weight"].shape == (1 << 22,)


def test_weights_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(1 << 16)}, file)
    monkeypatch.setattr("compressor.storage.reading.free_memory", lambda: 1000.0)
    with pytest.raises(WeightsError, match="of memory"):
        read_state_dict(file)
