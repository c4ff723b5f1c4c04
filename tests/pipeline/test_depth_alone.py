"""Networks of which nothing but whole residual blocks can go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.errors import CompressorError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Net(nn.Module):
    """Its input and its output fix the stream, and a block has no channels of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean((2, 3))


X = torch.randn(8, 4, 8, 8)


def _loader() -> Any:
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(16, 4, 8, 8), torch.randint(0, 4, (16,))), batch_size=8)


@pytest.mark.parametrize("budgets", [{"flops": "50%"}, {"params": "30%", "flops": "75%"}, {"params": "99%"}])
@pytest.mark.parametrize("round_to", [None, 1, 8])
def test_oneshot_takes_blocks_where_nothing_else_can_go(budgets: dict[str, str], round_to: int | None) -> None:
    result = compressor.compress(Net().eval(), X, budgets, search="oneshot", round_to=round_to)
    assert result.report.blocks_removed
    for budget in result.report.budgets:
        assert budget.reached <= budget.limit
    kept = 4 - len(result.report.blocks_removed)
    assert sum(p.numel() for p in result.model.parameters()) == kept * (4 * 4 * 9 + 4 + 8)
    assert result.model.eval()(torch.randn(3, 4, 5, 5)).shape == (3, 4)


@pytest.mark.parametrize("search", ["oneshot", "figs", "dnarch"])
def test_every_search_does(search: str, tmp_path: Path) -> None:
    loader = _loader()
    options = {} if search == "oneshot" else {"epochs": 2}
    result = compressor.compress(
        Net().eval(), X, {"flops": "50%"}, search=search, data=(loader, loader), options=options, finetune_epochs=1
    )
    assert result.report.budgets[0].reached <= result.report.budgets[0].limit
    result.save(tmp_path / "out")
    loaded = compressor.load(tmp_path / "out", model=Net()).eval()
    torch.testing.assert_close(loaded(X), result.model.eval()(X))


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_session_does(search: str) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    session = compressor.prepare(model, X, {"flops": "50%"}, total_steps=10, search=search)
    for _ in range(10):
        loss = model(X).square().mean() + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()
    small = session.finish()
    assert sum(p.numel() for p in small.parameters()) <= 2 * (4 * 4 * 9 + 4 + 8)


def test_without_depth_there_is_nothing_to_remove() -> None:
    with pytest.raises(CompressorError, match="depth is off"):
        compressor.compress(Net().eval(), X, {"flops": "50%"}, search="oneshot", options={"depth": False})
    with pytest.raises(CompressorError, match="no block can go"):
        compressor.compress(nn.Sequential(nn.Conv2d(4, 4, 1)).eval(), X, {"flops": "50%"}, search="oneshot")


def test_blocks_go_where_channels_alone_would_not_do() -> None:
    """One channel of each layer always stays: a budget below that needs depth."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x.mean((2, 3))

    result = compressor.compress(Wide().eval(), X, {"flops": "20%"}, search="oneshot")
    assert len(result.report.blocks_removed) >= 2
    assert result.report.budgets[0].reached <= result.report.budgets[0].limit
