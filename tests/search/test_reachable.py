"""A budget that a method cannot meet is found before anything is trained, whatever else could meet it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.errors import UnreachableBudgetError, UsageError


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 32, 4, 4), nn.LayerNorm(32)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        out: torch.Tensor = self.head(self.norm(x).mean(1))
        return out


def plain() -> nn.Module:
    layers = [nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))


NETWORKS = {"plain": plain, "resnet": lambda: resnet20_cifar(num_classes=4), "attending": Attending}


def refused(
    make: Any, search: str, budget: dict[str, str], error: type[Exception] = UnreachableBudgetError, **options: Any
) -> tuple[str, list[str]]:
    """What is said, and which stages began."""
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(16, 3, 16, 16), torch.arange(16) % 4), batch_size=8)
    stages: list[str] = []

    def listen(event: Any) -> None:
        if type(event).__name__ == "StageBegan":
            stages.append(event.stage)

    with pytest.raises(error) as raised:
        compressor.compress(
            make(),
            torch.randn(1, 3, 16, 16),
            budget,
            data=(data, data),
            search=search,
            options=options,
            training=compressor.Training(search_epochs=1, finetune_epochs=1),
            listeners=[listen],
        )
    return str(raised.value), stages


@pytest.mark.parametrize("cost", ["flops", "params"])
@pytest.mark.parametrize("name", NETWORKS)
def test_dnarch_names_what_its_masks_leave_before_the_original_is_trained(name: str, cost: str) -> None:
    """Masks over width that may not fall low leave more than a network has at least."""
    gentle: dict[str, Any] = {"width_tau": 6.0, "depth_tau": 6.0}
    said, stages = refused(NETWORKS[name], "dnarch", {cost: "0.01%"}, **gentle)
    assert stages[-1] == "budgets"
    least = _smallest(said)
    assert least > 1.2 * _smallest(refused(NETWORKS[name], "figs", {cost: "0.01%"})[0])
    said, stages = refused(NETWORKS[name], "dnarch", {cost: f"{0.95 * least}%"}, **gentle)
    assert stages[-1] == "budgets"
    assert _smallest(said) == least


def _smallest(said: str) -> float:
    """The share of the original that the smallest network has, in percent."""
    found = re.search(r"\(([\d.]+) % of the original\)", said)
    assert found is not None, said
    return float(found[1])


@pytest.mark.parametrize(("search", "options"), [("supernet", {}), ("pooling", {"mixtures": 1})])
def test_others_that_have_bounds_of_their_own_name_them_then_too(search: str, options: dict[str, Any]) -> None:
    said, stages = refused(NETWORKS["resnet"], search, {"params": "0.3%"}, **options)
    assert stages[-1] == "budgets"
    assert ("smallest subnet" if search == "supernet" else "comes closest") in said


@pytest.mark.parametrize("lowest", ["flops=80%", "params=10%"])
def test_lowest_budgets_that_fit_no_other_are_refused_then_too(lowest: str) -> None:
    said, stages = refused(NETWORKS["plain"], "supernet", {"flops": "50%"}, UsageError, lowest=lowest)
    assert stages[-1] == "budgets"
    assert said.startswith("lowest")
