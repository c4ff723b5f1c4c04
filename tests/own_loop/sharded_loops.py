"""Training loops over weights that ``fully_shard`` spreads, each beside the same loop on one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from compressor.pipeline.session import Session
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, batch, flat, made, opened
from tests.own_loop.test_ranks import masks

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
