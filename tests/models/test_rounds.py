"""Several rounds of compression: what any of them saved loads into a fresh original, and into what came before."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import compressor
from compressor.architecture.architecture import Architecture
from compressor.errors import UsageError
from compressor.models import artifact


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.stem, self.head = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x)).mean(1))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, width, 1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.b(torch.relu(self.a(x))))


def residual() -> nn.Module:
    blocks = [Block(16) for _ in range(4)]
    return nn.Sequential(nn.Conv2d(3, 16, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "attention": (Encoder, torch.randn(2, 6, 8)),
    "blocks": (residual, torch.randn(2, 3, 12, 12)),
    "resnet": (lambda: resnet18(num_classes=4), torch.randn(1, 3, 32, 32)),
}


@pytest.mark.parametrize("shares", [("60%", "60%"), ("40%", "80%", "50%")])
@pytest.mark.parametrize("net", NETS)
def test_every_round_loads(net: str, shares: tuple[str, ...], tmp_path: Path) -> None:
    make, x = NETS[net]
    torch.manual_seed(0)
    model, folders = make(), []
    for number, share in enumerate(shares):
        result = compressor.compress(model, x, {"flops": share}, search="oneshot")
        folders.append(tmp_path / str(number))
        result.save(folders[-1])
        model = result.model
        fresh = compressor.load(folders[-1], model=make())
        assert torch.equal(fresh(x), model(x))
        if number:
            step = compressor.load(folders[-1], model=compressor.load(folders[-2], model=make()))
            assert torch.equal(step(x), model(x))
        if number == 1:  # from disk, or from a copy, it goes on as from memory
            model = copy.deepcopy(fresh)
    assert Architecture.from_json(artifact.read_manifest(folders[-1]).architecture).apply_(make()) is not None
    assert result.architecture.apply_(make()).state_dict().keys() == model.state_dict().keys()
    with pytest.raises(UsageError, match="compressed already"):
        compressor.load(folders[0], model=copy.deepcopy(model))


def test_kernels_and_resolution_of_several_rounds(tmp_path: Path) -> None:
    from compressor.models import load_model

    make = lambda: load_model("ccnn_4_140", weights="none", example_shape=(3, 16, 16), num_classes=4).model  # noqa: E731
    x = torch.randn(4, 3, 16, 16)
    batches = [(torch.randn(4, 3, 16, 16), torch.randint(0, 4, (4,))) for _ in range(3)]
    model = make()
    for number, search in enumerate(("dnarch", "oneshot")):
        epochs = {"data": (batches, batches), "search_epochs": 1, "finetune_epochs": 0} if search == "dnarch" else {}
        result = compressor.compress(model, x, {"flops": "50%"}, search=search, **epochs)  # type: ignore[arg-type]
        result.save(tmp_path / str(number))
        model = result.model
    assert torch.allclose(compressor.load(tmp_path / "1", model=make())(x), model(x), atol=1e-5)


def test_a_loop_of_one_s_own_is_a_round_too(tmp_path: Path) -> None:
    make, x = NETS["blocks"]
    session = compressor.prepare(make(), x, {"flops": "60%"}, total_steps=2)
    for _ in range(2):
        (session.model(x).sum() + session.cost_loss()).backward()
        session.step()
    result = compressor.compress(session.finish(), x, {"flops": "60%"}, search="oneshot")
    result.save(tmp_path)
    assert torch.equal(compressor.load(tmp_path, model=make())(x), result.model(x))


def test_an_architecture_applied_by_hand_counts(tmp_path: Path) -> None:
    make, x = NETS["resnet"]
    torch.manual_seed(0)
    first = compressor.compress(make(), x, {"flops": "50%"}, search="oneshot")
    second = compressor.compress(first.architecture.apply_(make()), x, {"flops": "50%"}, search="oneshot")
    second.save(tmp_path)
    assert torch.equal(compressor.load(tmp_path, model=make())(x), second.model(x))


def test_a_first_round_that_is_not_known_is_told(tmp_path: Path) -> None:
    make, x = NETS["attention"]
    first = compressor.compress(make(), x, {"flops": "50%"}, search="oneshot").model
    del first.__dict__["_compressed_by"]
    second = compressor.compress(first, x, {"flops": "70%"}, search="oneshot")
    with pytest.raises(UsageError, match="not known"):
        second.save(tmp_path)


def test_what_is_noted_is_plain_text_and_no_part_of_the_state() -> None:
    make, x = NETS["blocks"]
    result = compressor.compress(make(), x, {"flops": "50%"}, search="oneshot")
    noted = result.model.__dict__["_compressed_by"]
    assert all(isinstance(json.loads(text), dict) for text in noted)
    assert copy.deepcopy(result.model).__dict__["_compressed_by"] == noted
    assert not any("compressed_by" in key for key in result.model.state_dict())
