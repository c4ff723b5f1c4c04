"""What masks cannot follow once ``fully_shard`` has spread a model is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from compressor.errors import CompressorError, TrainingError, UsageError
from compressor.nn.modules import require_whole_tensors
from compressor.nn.sharded import require_here
from tests.own_loop.loops import EXAMPLE, Net, made, opened
from tests.own_loop.sharded_loops import STEPS, Attention
from tests.several import in_processes


def opened_then(change: Callable[[Net], Any], **arguments: Any) -> None:
    model = made(Net)
    session = opened(model, steps=STEPS, **arguments)
    change(model)
    model(EXAMPLE).sum().backward()
    session.step()


def shares_first() -> None:
    model = made(Net)
    fully_shard(model)
    opened(model)


def around() -> None:
    model = made(Net)
    opened(model)
    outer = nn.Sequential(model)
    fully_shard(outer)
    outer(EXAMPLE)


def by_itself() -> None:
    model = made(Attention)
    opened(model)
    fully_shard(model.layers[0].self_attn)
    fully_shard(model)
    model(EXAMPLE)


def mixed(model: Net) -> None:
    fully_shard(model.blocks[0])
    model.blocks[1].up.weight = nn.Parameter(torch.zeros(32, 16))  # type: ignore[union-attr]


def lost(rank: int) -> None:
    """NaN in the share of one process alone."""
    model = made(Net)
    session = opened(model)
    fully_shard(model)
    if not rank:
        model.head.bias.detach().to_local().fill_(torch.nan)  # type: ignore[attr-defined]
    session.finish()


class Signal(nn.Module):
    """Vectors (B, 12), taken as signals of one channel, to three classes; the branch may run at a lower rate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv1d(1, 8, 3, padding=1), nn.Linear(8, 3)
        self.branch = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.unsqueeze(1))
        out: Tensor = self.head((x + self.branch(x)).mean(-1))
        return out


def resampled() -> None:
    model = made(Signal)
    opened(model, "dnarch", options={"learn": "width,resolution"}, budgets={"flops": "60%"})
    fully_shard(model)
    model(EXAMPLE)


def odd_memory() -> None:
    """What an optimizer remembers cannot be sliced, and it remembers what it did."""
    model = made(Net)
    session = opened(model)
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(EXAMPLE).sum().backward()
    optimizer.step()
    session.step()
    state = optimizer.state[model.stem.weight]
    state["odd"] = [1]
    session.finish()
    try:
        session.carry_optimizer(optimizer)
    finally:
        assert optimizer.state[model.stem.weight] is state
        assert isinstance(state["momentum_buffer"], DTensor)


def refusals(rank: int) -> dict[str, str]:
    mesh, groups = init_device_mesh("cpu", (2,)), [dist.new_group([0]), dist.new_group([1])]
    attempts: dict[str, Callable[[], Any]] = {
        "shares first": shares_first,
        "tensors": lambda: opened_then(lambda m: parallelize_module(m.blocks[0], mesh, {"up": ColwiseParallel()})),
        "around": around,
        "alone": lambda: opened_then(lambda model: fully_shard(model), process_group=groups[rank]),
        "by itself": by_itself,
        "mixed": lambda: opened_then(mixed),
        "lost": lambda: lost(rank),
        "resampled": resampled,
        "odd memory": odd_memory,
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = "went well"
        except CompressorError as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def test_what_masks_cannot_follow_is_refused_by_name(tmp_path: Path) -> None:
    for found in in_processes(tmp_path, refusals):
        assert "Call compressor.prepare first and fully_shard on the prepared" in found["shares first"]
        assert "blocks.0.up.weight is another DTensor" in found["tensors"]
        assert "fully_shard is supported, on the prepared model itself" in found["around"]
        assert "pass process_group= of the same processes" in found["alone"]
        assert "call fully_shard on the module around it" in found["by itself"]
        assert "blocks.1.up.weight was replaced" in found["mixed"]
        assert "A learned resolution needs kernels that are whole" in found["resampled"]
        assert "SGD remembers 'odd' (a list) of stem.weight" in found["odd memory"]
        assert found["lost"].startswith(f"{TrainingError.__name__}: head.bias has become NaN")


def test_shares_on_another_device_are_refused() -> None:
    def share(kept: str, mesh: str) -> Any:
        where = SimpleNamespace(mesh=torch.tensor([1, 0]), device_type=mesh)
        return SimpleNamespace(device_mesh=where, device=torch.device(kept))

    with pytest.raises(UsageError, match=r"w is kept on cpu for a mesh on cuda .* without offload_policy"):
        require_here("w", share("cpu", "cuda"), [0, 1], torch.device("cuda"))
    with pytest.raises(UsageError, match=r"w was moved to cuda when it was sharded, and masks are on cpu"):
        require_here("w", share("cuda", "cuda"), [0, 1], torch.device("cpu"))
    require_here("w", share("cuda", "cuda"), [0, 1], torch.device("cuda"))


def test_the_other_fsdp_is_refused_by_name() -> None:
    class FullyShardedDataParallel(nn.Sequential):
        """PyTorch's own needs an accelerator."""

    with pytest.raises(UsageError, match=r"FullyShardedDataParallel \(FSDP1\), which is not supported"):
        require_whole_tensors(FullyShardedDataParallel(made(Net)))
