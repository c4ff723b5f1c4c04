"""A model that ``fully_shard`` spreads over processes after ``prepare`` learns what one process would learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from compressor.errors import UsageError
from compressor.graph.recording.module_stack import function_name
from compressor.nn.sharded import is_exchanging, told_apart
from tests.own_loop.loops import EXAMPLE, Net, made, opened
from tests.own_loop.sharded_loops import CASES, STEPS, trained
from tests.several import in_processes

WENT_ON = {"sharded", "itself", "shrunk", "small", "late"}


def gone_on() -> dict[str, bool]:
    """After ``finish`` both networks train on; then the model itself becomes small."""
    model = made(Net)
    session = opened(model, steps=STEPS)
    fully_shard(model)
    model(EXAMPLE).sum().backward()
    session.step()
    small = session.finish()

    def trains(network: nn.Module) -> bool:
        network.zero_grad()
        network(EXAMPLE).sum().backward()
        return all(isinstance(p, DTensor) and p.grad is not None for p in network.parameters())

    found = {"sharded": trains(model), "itself": session.shrink_() is model and type(model) is Net}
    state, expected = model.state_dict(), small.state_dict()
    found["shrunk"] = all(torch.equal(state[name], t) for name, t in expected.items())
    fully_shard(small)
    found["small"] = trains(small)
    try:
        session.shrink_()
    except UsageError as error:
        found["late"] = "call it before fully_shard" in str(error)
    return found


class Seen(TorchFunctionMode):
    """The functions that are called, but for those of FSDP."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not is_exchanging():
            self.names.append(function_name(func))
        return func(*args, **(kwargs or {}))


def functions_seen() -> list[list[str]]:
    """Those of a block as it is, and once it is sharded."""
    block = made(Net).blocks[0]

    def seen() -> list[str]:
        with told_apart([block]), Seen() as found:
            block(torch.zeros(2, 16))
        return found.names

    plain = seen()
    fully_shard(block)
    return [plain, seen()]


QUICK = ("figs", "dnarch, kept whole", "half precision")
OTHERS = tuple(name for name in CASES if name not in QUICK)


def quick_ones(rank: int) -> dict[str, Any]:
    found = {name: trained(CASES[name], rank, 2) for name in QUICK}
    return {**found, "gone on": gone_on(), "functions": functions_seen()}


def others(rank: int) -> dict[str, Any]:
    return {name: trained(CASES[name], rank, 2) for name in OTHERS}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return in_processes(tmp_path_factory.mktemp("sharded"), quick_ones)


@pytest.fixture(scope="module")
def two_others(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return in_processes(tmp_path_factory.mktemp("sharded"), others)


@pytest.mark.parametrize("name", QUICK)
def test_shares_learn_what_one_process_learns(two: list[Any], name: str) -> None:
    require_like_one(two, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_shares_learn_it_in_other_loops(two_others: list[Any], name: str) -> None:
    require_like_one(two_others, name)


def require_like_one(two: list[Any], name: str) -> None:
    found, other, rounding = two[0][name], two[1][name], CASES[name].rounding
    assert all(torch.equal(a, b) for a, b in zip(found["masks"], other["masks"], strict=True))
    assert all(torch.equal(t, other["state"][key]) for key, t in found["state"].items()), "equal on all ranks"
    assert found["kept"] == other["kept"]
    expected = trained(CASES[name])
    assert found["kept"] == expected["kept"]
    assert found["class"] == expected["class"]
    for mine, others_, one in zip(found["gradients"], other["gradients"], expected["gradients"], strict=True):
        torch.testing.assert_close((mine + others_) / 2, one, rtol=rounding, atol=rounding)
    for key in ("masks", "first gradients", "state", "momenta"):
        torch.testing.assert_close(found[key], expected[key], rtol=rounding, atol=rounding)
    torch.testing.assert_close(found["validated"].float(), found["computed"], rtol=rounding, atol=rounding)
    assert len({tuple(t.tolist()) for t in found["masks"]}) == 5, "masks moved in four steps"


def test_both_networks_train_on(two: list[Any]) -> None:
    assert all(set(each["gone on"]) == WENT_ON and all(each["gone on"].values()) for each in two)


def test_what_fsdp_computes_is_told_apart_from_the_program(two: list[Any]) -> None:
    plain, shared = two[0]["functions"]
    assert plain == shared
    assert "softmax" in plain
