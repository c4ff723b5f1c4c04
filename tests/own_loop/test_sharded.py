"""A model that ``fully_shard`` spreads over processes after ``prepare`` learns what one process would learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from compressor.errors import CompressorError, TrainingError, UsageError
from compressor.graph.recording.module_stack import function_name
from compressor.nn.modules import require_whole_tensors
from compressor.nn.sharded import is_exchanging, require_here, told_apart
from compressor.pipeline.session import Session
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, batch, flat, made, opened
from tests.own_loop.test_ranks import masks
from tests.several import in_processes

STEPS = 6
OPTIONS = {"figs": {}, "dnarch": {"every": 1, "settle": 0.4}}  # masks of both learn in four steps


class Recurrent(nn.Module):
    """Vectors (B, 12), taken as sequences (B, 3, 4), to three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lstm, self.head = nn.Linear(4, 16), nn.LSTM(16, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(self.stem(x.reshape(-1, 3, 4)).relu())[0][:, -1])
        return out


class Attention(nn.Module):
    """Vectors (B, 12), taken as sequences (B, 3, 4), to three classes.

    The second layer has the first one's ``linear1``, and a parameter belongs to the model itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.place = nn.Linear(4, 16), nn.Linear(16, 3), nn.Parameter(torch.randn(3, 16))
        layer = {"d_model": 16, "nhead": 4, "dim_feedforward": 32, "dropout": 0.0, "batch_first": True}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(**layer) for _ in range(2))  # type: ignore[arg-type]
        self.layers[1].linear1.weight = self.layers[0].linear1.weight  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.reshape(-1, 3, 4)) + self.place
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(x.mean(1))
        return out


Backward = Callable[[nn.Module, Session, Tensor, Tensor], None]


def plainly(model: nn.Module, session: Session, x: Tensor, y: Tensor) -> None:
    (F.cross_entropy(model(x).float(), y) + session.cost_loss()).backward()


def in_parts(model: nn.Module, session: Session, x: Tensor, y: Tensor) -> None:
    """Two parts of the batch, of which the first is not reduced by itself; before them a backward that is discarded."""
    model(x).square().sum().backward()
    model.zero_grad()
    half, spread = len(x) // 2, hasattr(model, "set_requires_gradient_sync")
    if spread:
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
    (F.cross_entropy(model(x[:half]), y[:half]) * 0.5).backward()
    if spread:
        model.set_requires_gradient_sync(True)  # type: ignore[operator]
    (F.cross_entropy(model(x[half:]), y[half:]) * 0.5 + session.cost_loss()).backward()


def scaled(model: nn.Module, session: Session, x: Tensor, y: Tensor) -> None:
    """As a ``GradScaler`` would; weights are brought back to scale, as it does."""
    ((F.cross_entropy(model(x), y) + session.cost_loss()) * 1024.0).backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= 1024.0


def recomputed(*, reentrant: bool, inside: bool) -> Callable[[], nn.Module]:
    def run(function: Any, x: Tensor) -> Any:
        return checkpoint(function, x, use_reentrant=reentrant)

    def model() -> nn.Module:
        net: Net = made(Net) if inside else made(Net, run)
        for block in net.blocks if inside else ():
            block.inside = run  # type: ignore[union-attr]
        return net

    return model


@dataclasses.dataclass(frozen=True)
class Case:
    """One loop. ``parts`` are sharded by themselves, in turn or as one group, the rest with the model."""

    make: Callable[[], nn.Module] = lambda: made(Net)
    search: str = "figs"
    parts: Callable[[Any], Any] = lambda model: list(model.blocks)
    policy: dict[str, Any] = dataclasses.field(default_factory=dict)
    mesh: tuple[int, ...] = (2,)
    backward: Backward = plainly
    resumes: bool = False
    rounding: float = 1e-5


CASES = {
    "figs": Case(),
    "dnarch": Case(search="dnarch"),
    "kept whole": Case(policy={"reshard_after_forward": False}),
    "dnarch, kept whole": Case(search="dnarch", policy={"reshard_after_forward": False}),
    "convolutions": Case(make=lambda: made(Convolutions), parts=lambda model: [model.body]),
    "dnarch on convolutions": Case(lambda: made(Convolutions), "dnarch", lambda model: [model.body]),
    "recurrent": Case(make=lambda: made(Recurrent), parts=lambda model: [model.lstm]),
    "attention": Case(make=lambda: made(Attention), parts=lambda model: [list(model.layers)]),
    "split along the last axis": Case(policy={"shard_placement_fn": lambda p: Shard(p.ndim - 1)}),
    "one share": Case(parts=lambda model: []),
    "replicas": Case(mesh=(2, 1)),
    "in parts": Case(backward=in_parts),
    "scaled": Case(backward=scaled),
    "recomputed blocks": Case(make=recomputed(reentrant=False, inside=False)),
    "recomputed blocks, reentrant": Case(make=recomputed(reentrant=True, inside=False)),
    "recomputed inside": Case(make=recomputed(reentrant=False, inside=True)),
    "goes on": Case(resumes=True),
    "half precision": Case(policy={"mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32)}, rounding=0.03),
}


def sharded(model: nn.Module, case: Case) -> None:
    names = ("replicas", "shares")[-len(case.mesh) :]
    policy = {**case.policy, "mesh": init_device_mesh("cpu", case.mesh, mesh_dim_names=names)}
    for part in case.parts(model):
        fully_shard(part, **policy)
    fully_shard(model, **policy)


def trained(case: Case, rank: int = 0, size: int = 1) -> dict[str, Any]:
    """The loop on one process of ``size``, each with its part of every batch and a seed of its own."""
    model = case.make()
    torch.manual_seed(7 + rank)
    session = opened(model, case.search, STEPS, options=OPTIONS[case.search])
    if size > 1:
        sharded(model, case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen, gradients, first, validated = [masks(session)], [], {}, EXAMPLE
    for step in range(STEPS):
        x, y = (t.chunk(size)[rank] for t in batch(step))
        case.backward(model.train(), session, x, y)
        if not step:
            first = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
        gradients.append(flat(session.parameters()))
        optimizer.step()
        optimizer.zero_grad()
        session.step()
        seen.append(masks(session))
        if case.resumes and step == 2:
            state = session.state_dict()
            session.close()
            torch.manual_seed(11)
            fresh = case.make()
            fresh.load_state_dict({name: whole(t) for name, t in model.state_dict().items()})
            model, session = fresh, opened(fresh, case.search, STEPS, options=OPTIONS[case.search])
            if size > 1:
                sharded(model, case)
            session.load_state_dict(state)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with session.masked(), torch.no_grad():
            validated = model.eval()(EXAMPLE)
    kind = type(model)
    small = session.finish()
    session.carry_optimizer(optimizer)
    with torch.no_grad():
        computed = small.eval()(EXAMPLE)
    assert {type(p) for p in small.parameters()} == {nn.Parameter}
    assert type(model) is kind
    momenta = {name: optimizer.state[p]["momentum_buffer"] for name, p in small.named_parameters()}
    return {
        "masks": seen,
        "gradients": gradients,
        "first gradients": first,
        "kept": session.architecture.to_json(),
        "state": dict(small.state_dict()),
        "momenta": momenta,
        "class": type(small).__name__,
        "validated": validated,
        "computed": computed,
    }


def whole(tensor: Any) -> Tensor:
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found.clone()


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
    return {**found, "refusals": refusals(rank), "gone on": gone_on(), "functions": functions_seen()}


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


def test_what_masks_cannot_follow_is_refused_by_name(two: list[Any]) -> None:
    for found in (each["refusals"] for each in two):
        assert "Call compressor.prepare first and fully_shard on the prepared" in found["shares first"]
        assert "blocks.0.up.weight is another DTensor" in found["tensors"]
        assert "fully_shard is supported, on the prepared model itself" in found["around"]
        assert "pass process_group= of the same processes" in found["alone"]
        assert "call fully_shard on the module around it" in found["by itself"]
        assert "blocks.1.up.weight was replaced" in found["mixed"]
        assert "A learned resolution needs kernels that are whole" in found["resampled"]
        assert "SGD remembers 'odd' (a list) of stem.weight" in found["odd memory"]
        assert found["lost"].startswith(f"{TrainingError.__name__}: head.bias has become NaN")


def test_both_networks_train_on(two: list[Any]) -> None:
    assert all(set(each["gone on"]) == WENT_ON and all(each["gone on"].values()) for each in two)


def test_what_fsdp_computes_is_told_apart_from_the_program(two: list[Any]) -> None:
    plain, shared = two[0]["functions"]
    assert plain == shared
    assert "softmax" in plain


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
