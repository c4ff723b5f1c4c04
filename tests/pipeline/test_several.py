"""``compressor.compress`` on two processes: the network of one, for every method that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import compressor
from compressor.errors import CompressorError
from compressor.process.ranks import current
from compressor.train import loop
from compressor.train.optim import optimizer_parameters
from compressor.train.reduction import digest
from tests.several import in_processes

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
# Thirty short compressions.
pytestmark = pytest.mark.slow
SEARCHES: dict[str, dict[str, Any]] = {
    "figs": {"least_steps": 0},
    "dnarch": {"least_steps": 0},
    "dash": {"kernel_sizes": (1, 3), "dilations": (1,), "share": 1.0},
    "pooling": {"mixtures": 2},
    "supernet": {"population": 4, "generations": 1},
}
HOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "in parts, in half precision": {"accumulate": 2, "amp": True, "clip_norm": 1.0},
}


class Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.last(torch.relu(self.norm(self.first(x)))))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = [Branch(8), nn.MaxPool2d(2), Branch(8)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *body, *head)


def samples(seed: int = 0) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (48,), generator=draw)
    return TensorDataset(torch.randn(48, 3, 8, 8, generator=draw) + y[:, None, None, None], y)


@contextmanager
def noted_steps() -> Iterator[list[str]]:
    """Digests of all that optimizers move, weights and masks, after every step of the program's own training."""
    found: list[str] = []
    stepped = loop.step_all

    def noted(scaler: Any, optimizers: Iterable[Any], unscaled: Any) -> None:
        every = list(optimizers)
        stepped(scaler, every, unscaled)
        found.append(digest(p for optimizer in every for p in optimizer_parameters(optimizer)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step_all", noted)
        yield found


def compressed(search: str, told: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {"search_epochs": 2, "finetune_epochs": 1, "batch_size": 12, "lr": 0.02, **told}
    budgets = {"flops": "150%" if search in ("dash", "pooling") else "60%"}
    data = more.pop("data", None) or {"train": DataLoader(samples()), "val": DataLoader(samples(1))}
    with noted_steps() as steps:
        result = compressor.compress(
            more.pop("model", None) or network(),
            EXAMPLE,
            more.pop("budgets", budgets),
            data=data,
            search=search,
            options=SEARCHES[search],
            training=compressor.Training(**told),
            **more,
        )
    return {
        "steps": steps,
        "kept": result.architecture.to_json(),
        "state": dict(result.model.state_dict()),
        "budgets": [dataclasses.asdict(budget) for budget in result.report.budgets],
        "history": len(result.report.history),
    }


def refused(rank: int, call: Any) -> str:
    try:
        call()
    except CompressorError as error:
        return str(error)
    return "not refused"


def everything(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {"searches": {(s, h): compressed(s, HOWS[h]) for s in SEARCHES for h in HOWS}}
    found["tuned"] = compressed("figs", {"tune": {"lr": [0.02, 0.01]}, "distill": 0.3})
    sampler: Any = DistributedSampler(samples())
    parted = {"train": DataLoader(samples(), sampler=sampler, batch_size=6), "val": DataLoader(samples(1))}
    found["sampled"] = compressed("figs", {}, data=parted)
    heard: list[Any] = []
    found["heard"] = (compressed("figs", {"finetune_epochs": 0}, listeners=[heard.append]), len(heard))[1]
    found["refused"] = {
        "weights": refused(rank, lambda: compressed("figs", {}, model=network(rank))),
        "model": refused(rank, lambda: compressed("figs", {}, model=nn.Sequential(*list(network())[: 6 + 3 * rank]))),
        "lr": refused(rank, lambda: compressed("figs", {"lr": 0.1 + rank})),
        "budget": refused(rank, lambda: compressed("figs", {}, budgets={"flops": f"{50 + rank}%"})),
        "data": refused(
            rank,
            lambda: compressed("figs", {}, data={"train": DataLoader(samples(rank)), "val": DataLoader(samples(1))}),
        ),
        "batch": refused(rank, lambda: compressed("figs", {"batch_size": 1})),
    }
    groups = [dist.new_group([0]), dist.new_group([1])]
    found["alone"] = compressed("figs", {"seed": rank}, process_group=groups[rank], model=network(rank))
    assert dist.get_world_size() == 2, "the group of the caller is as it was"
    assert current().size == 1
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return in_processes(tmp_path_factory.mktemp("several"), everything)


def same(mine: dict[str, Any], other: dict[str, Any]) -> bool:
    return mine["kept"] == other["kept"] and all(torch.equal(t, other["state"][n]) for n, t in mine["state"].items())


def test_masks_and_weights_are_the_same_after_every_step(two: list[Any]) -> None:
    for key, found in two[0]["searches"].items():
        assert found["steps"] == two[1]["searches"][key]["steps"], key
        assert len(set(found["steps"])) == len(found["steps"]) >= 6, key


def test_both_processes_end_with_the_same_network(two: list[Any]) -> None:
    one, other = two
    assert all(same(found, other["searches"][key]) for key, found in one["searches"].items())
    assert all(same(one[name], other[name]) for name in ("tuned", "sampled"))
    assert not same(one["alone"], other["alone"])


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("search", SEARCHES)
def test_it_is_the_network_of_one_process(two: list[Any], search: str, how: str) -> None:
    alone, found = compressed(search, HOWS[how]), two[0]["searches"][search, how]
    assert found["kept"] == alone["kept"]
    assert found["budgets"] == alone["budgets"]
    assert found["history"] == alone["history"]
    if how == "plain":
        for name, tensor in alone["state"].items():
            torch.testing.assert_close(found["state"][name], tensor, rtol=0.02, atol=0.02)


def test_only_the_first_tells(two: list[Any]) -> None:
    assert two[0]["heard"] > 10
    assert two[1]["heard"] == 0


def test_different_work_is_refused_everywhere_and_named(two: list[Any]) -> None:
    for found in (each["refused"] for each in two):
        assert "the value of weights differs" in found["weights"]
        assert "the model differs" in found["model"]
        assert "lr differs (0.1 and 1.1)" in found["lr"]
        assert "a budget differs (flops 50% and flops 51%)" in found["budget"]
        assert "the train split differs" in found["data"]
        assert "A batch of 1 sample cannot be shared by 2 processes" in found["batch"]
