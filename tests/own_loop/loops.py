"""Networks and loops of a user's own, which differ from a plain one in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor
from compressor.pipeline.session import Session

EXAMPLE = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
WIDTH = 16


class Block(nn.Module):
    """Arithmetic across channels, in modules and in functions, around two layers. ``inside`` is how parts of it run."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: Callable[..., Any] | None = None
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def first(self, x: Tensor) -> Tensor:
        return F.gelu(self.up(self.norm(x)))

    def second(self, y: Tensor) -> Tensor:
        out: Tensor = self.down(y * F.softmax(y, -1) + y)
        return out

    def forward(self, x: Tensor) -> Tensor:
        inside = self.inside if self.training and x.requires_grad else None
        if inside is None:
            return self.second(self.first(x))

        def both(x: Tensor) -> Tensor:
            found: Tensor = inside(self.second, inside(self.first, x))
            return found

        out: Tensor = inside(both, x)
        return out


class Net(nn.Module):
    """Vectors (B, 12) to three classes. ``through(block, x)`` is how a block is run."""

    def __init__(self, through: Callable[[nn.Module, Tensor], Tensor] | None = None, blocks: int = 2) -> None:
        super().__init__()
        self.through = through
        self.stem, self.head = nn.Linear(12, WIDTH), nn.Linear(WIDTH, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.through is None or not (self.training and x.requires_grad):
            out: Tensor = block(x)
            return out
        return self.through(block, x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + self.run(block, x)
        out: Tensor = self.head(x)
        return out


class Convolutions(nn.Module):
    """Vectors (B, 12), taken as images (B, 3, 2, 2), to three classes; all statistics are BatchNorm's."""

    def __init__(self, through: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.through = through
        self.stem = nn.Conv2d(3, 12, 1)
        self.body = nn.Sequential(
            nn.Conv2d(12, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1)
        )
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.reshape(-1, 3, 2, 2)).relu()
        plain = self.through is None or not (self.training and x.requires_grad)
        y = self.body(x) if plain else self.through(self.body, x)  # type: ignore[misc]
        out: Tensor = self.head((x + y).mean((2, 3)))
        return out


def made(kind: Callable[..., nn.Module] = Net, *args: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind(*args)


@dataclass
class Run:
    """What a loop saw: per step the loss and the gradients of weights and masks; and how it ended."""

    losses: list[float] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    kept: Any = None
    small: Any = None

    def like(self, other: Run, rtol: float = 1e-4) -> None:
        """Assert that it is the same loop, up to the order of sums."""
        torch.testing.assert_close(torch.tensor(self.losses), torch.tensor(other.losses), rtol=rtol, atol=1e-6)
        for mine, theirs in ((self.weights, other.weights), (self.masks, other.masks)):
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=rtol, atol=1e-5)
        assert self.kept == other.kept

    def same(self, other: Run) -> None:
        """Assert that it is the same loop, bit for bit."""
        assert self.losses == other.losses
        assert all(torch.equal(a, b) for a, b in zip(self.masks, other.masks, strict=True))
        assert self.kept == other.kept
        state, expected = self.small.state_dict(), other.small.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def flat(parameters: Any) -> Tensor:
    found = [p.grad.reshape(-1).double() for p in parameters if p.grad is not None]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(size, 12, generator=generator), torch.randint(0, 3, (size,), generator=generator)


def opened(model: nn.Module, search: str = "figs", steps: int = 6, **options: Any) -> Session:
    options.setdefault("budgets", {"flops": "50%"})
    return compressor.prepare(model, EXAMPLE, options.pop("budgets"), search=search, total_steps=steps, **options)


def loop(
    model: nn.Module,
    search: str = "figs",
    steps: int = 6,
    *,
    call: Callable[[Tensor], Tensor] | None = None,
    session: Session | None = None,
) -> Run:
    """A plain loop around ``call``, by default the model."""
    session = session or opened(model, search, steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = Run()
    model.train()
    for step in range(steps):
        x, y = batch(step)
        loss = F.cross_entropy((call or model)(x), y)
        optimizer.zero_grad()
        loss.backward()
        found.masks.append(flat(session.parameters()))
        cost = session.cost_loss()
        if cost.requires_grad:
            cost.backward()
        found.losses.append(loss.item())
        found.weights.append(flat(model.parameters()))
        optimizer.step()
        session.step()
    found.small = session.finish()
    found.kept = session.architecture.to_json()
    return found
