"""Processes that train one model together have the same masks after every step, and the same network in the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel as DDP

import compressor
from compressor.errors import UsageError
from compressor.process.ranks import Ranks
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, batch, made, opened
from tests.several import in_processes

STEPS = 6


def masks(session: Any) -> Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in session.parameters()])


class WithBuffers(Net):
    """What a forward moves in each process by what it sees there."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[0].norm = nn.BatchNorm1d(16)
        self.register_buffer("signs", torch.zeros(16, dtype=torch.bool))
        self.register_buffer("spectrum", torch.zeros(9, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                mean = self.stem(x).mean(0)
                self.signs.copy_(mean > 0)
                self.spectrum.copy_(torch.fft.rfft(mean))
        return super().forward(x)


def trained(
    rank: int, *, size: int, search: str, wrapped: str, alike: bool, spoil: int = -1, kind: type[Net] = Net
) -> dict[str, Any]:
    """A loop on one process of ``size``: each has its part of every batch, and seeds of its own unless ``alike``."""
    model = made(kind)
    torch.manual_seed(7 if alike else 7 + rank)
    plain = kind is Net  # DistributedDataParallel shares no truth values through gloo
    ddp: Any = DDP(model, broadcast_buffers=plain) if wrapped == "before" else model
    session = opened(ddp, search, STEPS)
    if wrapped == "after":
        ddp = DDP(model, broadcast_buffers=plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    ddp.train()
    for step in range(STEPS):
        x, y = (t.chunk(size)[rank] for t in batch(step))
        if step % 2 and size > 1:  # a part of the batch by itself, which is not reduced yet
            with ddp.no_sync():
                (F.cross_entropy(ddp(x[:2]), y[:2]) * 0.5).backward()
            (F.cross_entropy(ddp(x[2:]), y[2:]) * 0.5 + session.cost_loss()).backward()
        elif size > 1:
            (F.cross_entropy(ddp(x), y) + session.cost_loss()).backward()
        else:
            (F.cross_entropy(ddp(x), y) + session.cost_loss()).backward()
        if step == spoil and rank == size - 1:
            for parameter in session.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(torch.nan)
        optimizer.step()
        optimizer.zero_grad()
        session.step()
        seen.append(masks(session))
        if rank == 0:  # one process alone may validate
            with session.masked(), torch.no_grad():
                model.eval()(EXAMPLE)
            ddp.train()
    small = session.finish()
    state = dict(small.state_dict())
    return {"masks": seen, "kept": session.architecture.to_json(), "state": state, "type": type(small).__name__}


def several(rank: int) -> list[Any]:
    """All kinds of loops, in processes that were started once."""
    found: list[Any] = []
    for search in ("figs", "dnarch"):
        for wrapped in ("before", "after"):
            found.append(trained(rank, size=2, search=search, wrapped=wrapped, alike=False))
        found.append(trained(rank, size=2, search=search, wrapped="after", alike=False, kind=WithBuffers))
    found.append(trained(rank, size=2, search="figs", wrapped="before", alike=True))
    found.append(trained(rank, size=2, search="figs", wrapped="before", alike=False, spoil=2))
    return found


def test_all_ranks_have_the_same_masks_and_end_with_the_same_network(two: list[Any]) -> None:
    one, other = (found["loops"] for found in two)
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a["masks"], b["masks"], strict=True))
        assert a["kept"] == b["kept"]
        assert a["type"] in ("Net", "WithBuffers")
        assert all(torch.equal(t, b["state"][name]) for name, t in a["state"].items())
    assert torch.equal(one[-1]["masks"][1], one[-1]["masks"][2]), "lost on one rank, left out on all"
    assert not torch.equal(one[0]["masks"][1], one[0]["masks"][2])


def uneven(rank: int, how: str) -> Any:
    torch.manual_seed(rank)
    model = Convolutions() if how == "weights" else made(Net)
    arguments: dict[str, Any] = {"total_steps": 5 + rank if how == "steps" else 5}
    budgets: dict[str, Any] = {"flops": f"{50 + 10 * rank}%" if how == "budgets" else "50%"}
    if how == "alone":
        groups = [dist.new_group([0]), dist.new_group([1])]
        arguments |= {"process_group": groups[rank], "total_steps": 5 + rank}
    if how == "latency":
        budgets, arguments["target"] = {"latency": "50%"}, "onnxruntime-cpu"
    session = compressor.prepare(model, EXAMPLE, budgets, search="dnarch", **arguments)
    model.train()(EXAMPLE).sum().backward()
    session.step()
    return "prepared"


def refusals(rank: int) -> dict[str, str]:
    found = {}
    for how in ("weights", "steps", "budgets", "latency", "alone"):
        try:
            found[how] = uneven(rank, how)
        except UsageError as error:
            found[how] = str(error)
    return found


def test_ranks_that_do_something_else_are_told(two: list[Any]) -> None:
    for found in (each["refusals"] for each in two):
        assert "the order of channels by their weights differs" in found["weights"]
        assert "total_steps differs" in found["steps"]
        assert "a budget differs" in found["budgets"]
        assert "2 train together" in found["latency"]
        assert found["alone"] == "prepared"


def as_one(rank: int, size: int) -> tuple[list[Tensor], Any]:
    """The same examples everywhere, so that means are what each has."""
    model = made(Net)
    torch.manual_seed(7)
    ddp: Any = DDP(model) if size > 1 else model
    session = opened(ddp, steps=STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for step in range(STEPS):
        x, y = batch(step)
        (F.cross_entropy(ddp.train()(x), y) + session.cost_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
        seen.append(masks(session))
    small = session.finish()
    return [*seen, *small.state_dict().values()], session.architecture.to_json()


def everything(rank: int) -> dict[str, Any]:
    return {"loops": several(rank), "refusals": refusals(rank), "as one": as_one(rank, 2)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return in_processes(tmp_path_factory.mktemp("ranks"), everything)


def test_two_ranks_are_one_bit_for_bit(two: list[Any]) -> None:
    expected, kept = as_one(0, 1)
    for found, architecture in (each["as one"] for each in two):
        assert architecture == kept
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_sharded_weights_are_refused() -> None:
    class DTensor(nn.Parameter):
        pass

    model = made(Net)
    model.head.weight = DTensor(model.head.weight.detach())
    for work in (
        lambda: opened(model),
        lambda: compressor.compress(model, EXAMPLE, {"flops": "50%"}),
    ):
        with pytest.raises(UsageError, match=r"head\.weight is sharded \(DTensor: FSDP"):
            work()


def test_one_process_exchanges_nothing() -> None:
    assert Ranks.of(made(Net)).size == 1
