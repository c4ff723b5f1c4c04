"""Parameters that the example does not reach shrink with what they touch, or what they touch stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.graph import capture
from compressor.masks import Masking
from compressor.trim import trim_verified

WIDTH = 16


def mlp(hidden: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, WIDTH))


class Experts(nn.Module):
    """Every token goes to ``k`` experts; those that get none do not run."""

    def __init__(self, n: int, k: int, hidden: int = 32, *, norm: bool = False) -> None:
        super().__init__()
        self.gate, self.k = nn.Linear(WIDTH, n), k
        self.experts = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), *mlp(hidden)) if norm else mlp(hidden) for _ in range(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weight, chosen = self.gate(flat).softmax(-1).topk(self.k, -1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            row, column = torch.where(chosen == number)
            if row.numel():
                out.index_add_(0, row, expert(flat[row]) * weight[row, column][:, None])
        return out.view_as(x)


class Stream(nn.Module):
    """``use`` does something to the stream with the parts that ``put`` adds."""

    def __init__(self, use: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.embed, self.head, self.use = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 5), use
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        return self.use(self, torch.relu(self.embed(x)), *given)


def experts(m: Stream, x: Tensor) -> Tensor:
    return m.head(x + m.moe(x))


def experts_alone(m: Stream, x: Tensor) -> Tensor:
    return m.head(m.moe(x))


def by_index(m: Stream, x: Tensor, task: int = 0) -> Tensor:
    return m.heads[task](x + m.branches[task](x))


def first_sure(m: Stream, x: Tensor) -> Tensor:
    y = x
    for layer, head in zip(m.layers, m.heads, strict=True):
        x = torch.relu(layer(x))
        y = head(x)
        if y.mean() > 0:
            return y
    return y


def by_value(m: Stream, x: Tensor) -> Tensor:
    return m.head(x + m.branch(x) if x.sum() > 2 else m.other(x) * m.scale + x)


def by_flag(m: Stream, x: Tensor, flag: bool = False) -> Tensor:
    return m.head(m.other(x) * m.scale + x if flag else x + m.branch(x))


def masked(m: Stream, x: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is not None:
        x = torch.where(mask[..., None], m.token.expand(*x.shape), x)
    return m.head(x + m.branch(x))


def conditioned(m: Stream, x: Tensor, by: Tensor | None = None) -> Tensor:
    if by is not None:
        scale, shift = m.film(by).chunk(2, -1)
        x = x * scale + shift
    return m.head(x + m.branch(x))


def fused(m: Stream, x: Tensor, fuse: bool = False) -> Tensor:
    z = torch.relu(m.side(x))
    return m.head(m.both(torch.cat([x, z], -1)) if fuse else x + m.back(z))


def assisted(m: Stream, x: Tensor) -> Any:
    x = x + m.branch(x)
    return (m.head(x), m.aux(x)) if m.training else m.head(x)


def linears(*widths: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(WIDTH, n) for n in widths)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TOKENS = [(randn(1, 60, 6),), (randn(3, 9, 6, seed=1),)]
FORMS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], list[tuple[Any, ...]]]] = {
    "experts": (lambda: Stream(experts, moe=Experts(4, 1)), (randn(1, 1, 6),), TOKENS),
    "experts, two each": (lambda: Stream(experts, moe=Experts(8, 2)), (randn(2, 2, 6),), TOKENS),
    "experts that normalise": (lambda: Stream(experts, moe=Experts(4, 1, norm=True)), (randn(1, 1, 6),), TOKENS),
    "experts as wide as the stream": (lambda: Stream(experts, moe=Experts(6, 1, WIDTH)), (randn(1, 1, 6),), TOKENS),
    "experts without a residual": (lambda: Stream(experts_alone, moe=Experts(4, 1)), (randn(1, 1, 6),), TOKENS),
    "more experts than tokens": (lambda: Stream(experts, moe=Experts(48, 1)), (randn(1, 1, 6),), TOKENS),
    "picked by index": (
        lambda: Stream(by_index, heads=linears(4, 4, 4), branches=nn.ModuleList(mlp() for _ in range(3))),
        (randn(2, 6),),
        [(randn(2, 6), 1), (randn(2, 6), 2)],
    ),
    "picked by index, of other widths": (
        lambda: Stream(by_index, heads=linears(3, 5, 7), branches=nn.ModuleList(mlp(8 * n) for n in (1, 2, 3))),
        (randn(2, 6),),
        [(randn(2, 6), 1), (randn(2, 6), 2)],
    ),
    "early exits": (
        lambda: Stream(first_sure, layers=linears(*[WIDTH] * 4), heads=linears(3, 3, 3, 3)),
        (randn(1, 6),),
        [(randn(1, 6, seed=seed),) for seed in range(9)],
    ),
    "by value": (
        lambda: Stream(by_value, branch=mlp(), other=nn.Linear(WIDTH, WIDTH), scale=nn.Parameter(torch.zeros(WIDTH))),
        (randn(1, 6),),
        [(0.1 * randn(2, 6),), (3 * randn(2, 6),)],
    ),
    "by a flag": (
        lambda: Stream(by_flag, branch=mlp(), other=nn.Linear(WIDTH, WIDTH), scale=nn.Parameter(torch.ones(WIDTH))),
        (randn(2, 6),),
        [(randn(2, 6), True)],
    ),
    "a token for what is masked": (
        lambda: Stream(masked, branch=mlp(), token=nn.Parameter(torch.zeros(1, 1, WIDTH))),
        (randn(2, 7, 6),),
        [(randn(2, 7, 6), randn(2, 7) > 0)],
    ),
    "a condition that is not given": (
        lambda: Stream(conditioned, branch=mlp(), film=nn.Linear(4, 2 * WIDTH)),
        (randn(2, 6),),
        [(randn(2, 6), randn(2, 4))],
    ),
    "another way to fuse": (
        lambda: Stream(fused, side=nn.Linear(WIDTH, 24), back=nn.Linear(24, WIDTH), both=nn.Linear(WIDTH + 24, WIDTH)),
        (randn(2, 6),),
        [(randn(2, 6), True)],
    ),
    "an auxiliary head": (
        lambda: Stream(assisted, branch=mlp(), aux=nn.Linear(WIDTH, 3)),
        (randn(2, 6),),
        [(randn(4, 6),)],
    ),
}
KEEPS = {"a condition that is not given", "another way to fuse", "by a flag", "picked by index, of other widths"}


@pytest.mark.parametrize("name", FORMS)
def test_other_inputs_run_and_are_exact(name: str) -> None:
    make, example, others = FORMS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    if name == "a token for what is masked":
        nn.init.normal_(model.token)
    graph = capture(model, example)
    choices = [(np.random.default_rng(0).random(graph.n_units + 1) < 0.6, None)]
    choices[0][0][-1] = True
    for group in graph.groups:
        choices[0][0][group.units[0]] = True
    for block in graph.blocks:
        gates = np.ones(len(graph.blocks), dtype=np.bool_)
        gates[block.index] = False
        choices.append((graph.all_units(), graph.gates(gates)))
    masking = Masking(model, graph)
    for units, gates in choices:
        result = trim_verified(model, graph, units, example, gates=gates)
        assert result.refused == [], result.reason
        for inputs in [example, *others]:
            kept = None if gates is None else torch.from_numpy(gates).double()
            with torch.no_grad(), masking.applied(torch.from_numpy(units[:-1]).double(), None, kept):
                expected = model(*inputs)
            with torch.no_grad():
                torch.testing.assert_close(result.model(*inputs), expected, rtol=0, atol=1e-9)
    small = trim_verified(model, graph, choices[0][0], example).model
    assert (small.embed.out_features < WIDTH) == (name not in KEEPS)
    small.train()(*others[0])


def test_what_was_not_reached_is_named_with_what_it_keeps() -> None:
    make, example, _ = FORMS["a condition that is not given"]
    reasons = [fixed.reason for fixed in capture(make().double().eval(), example).fixed]
    assert any("film.weight was not reached" in reason for reason in reasons)
