"""DNArch under torch.compile: what is live is compiled in few sizes, and computes what it computes otherwise."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from compressor.errors import UsageError
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.training.shrinking import MOST_BUILDS
from tests.search.search_models import EXAMPLE, attention, context, data, residual


@pytest.fixture
def compiler() -> Any:
    """A backend that counts what it is given and runs it as it is."""
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


def session(model: nn.Module, compiler: Any, **traced: bool) -> DnarchLearner:
    given = context(model, {"flops": 0.3}, **traced)
    scores = np.zeros(given.graph.n_units), np.zeros(len(given.graph.blocks))
    return DnarchLearner(model, Projector(given.graph, given.constraints), DnarchConfig(compiler=compiler), scores)


def train(masks: DnarchLearner, model: nn.Module, steps: int, compiler: Any) -> list[int]:
    """A search; returns how often there was something to compile until each step."""
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01), *masks.optimizers().values()]
    counts: list[int] = []
    batches = [batch for epoch in range(steps) for batch in data().train.batches(16, shuffle_seed=epoch)][:steps]
    for step, (inputs, targets) in enumerate(batches):
        masks.before_step(step, steps)
        loss = nn.functional.cross_entropy(masks.forward(model, inputs), targets)
        penalty = masks.penalty()
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        masks.after_step(step, steps)
        counts.append(compiler.frame_count)
    return counts


def test_a_search_that_shrinks_compiles_a_few_times(compiler: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = residual().train()
    masks = session(model, compiler, kernels=True)
    with caplog.at_level(logging.WARNING):
        counts = train(masks, model, 150, compiler)
    assert masks.live is not None
    assert masks.live.works
    assert not [r for r in caplog.records if "recompile" in r.message], "the compiler gave up"
    alive = sum(int((masks.width.masks()[torch.from_numpy(row)] > 0).sum()) for row in masks.width.rows)
    assert alive < 0.8 * sum(len(row) for row in masks.width.rows), "widths shrank"
    assert 1 < masks.live.builds <= MOST_BUILDS + 2
    assert counts[-1] == compiler.frame_count <= masks.live.builds
    assert counts[0] == counts[1], "steps at one size are one compilation"


def test_masks_that_swing_compile_no_more(compiler: Any) -> None:
    model = residual().train()
    masks = session(model, compiler)
    for step in range(40):
        with torch.no_grad():
            for rows in masks.rows:
                rows.offsets.fill_(1.0 if step % 2 else -0.8).add_(0.01 * step)
                rows.clamp_()
        masks.forward(model, EXAMPLE)
    assert masks.live is not None
    assert masks.live.works
    assert compiler.frame_count <= masks.live.builds <= MOST_BUILDS + 1
    for step in range(20, 40):
        masks.before_step(step, 40)
        masks.forward(model, EXAMPLE)
    assert masks.settled.decision is not None
    assert compiler.frame_count <= masks.live.builds <= MOST_BUILDS + 2
    assert compiler.frame_count <= torch._dynamo.config.recompile_limit


@pytest.mark.parametrize("shift", [0.2, 0.7, 1.2])
def test_compiled_is_what_the_masks_say(compiler: Any, shift: float) -> None:
    model = residual().eval()
    masks = session(model, compiler, kernels=True)
    found: list[Tensor] = []
    for by in (0.0, shift, -0.3):  # smaller, and a little larger again
        with torch.no_grad():
            for rows in masks.rows:
                rows.offsets.sub_(by)
                rows.clamp_()
        units, gates = (mask.float() for mask in masks.masks())
        with masks.masked(units, gates):
            expected = model(EXAMPLE)
        found.append(masks.forward(model, EXAMPLE))
        torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=1e-5)
    assert compiler.frame_count


def test_what_has_too_many_sizes_is_refused(compiler: Any) -> None:
    with pytest.raises(UsageError, match="a learned resolution"):
        session(residual(), compiler, resolution=True)
    with pytest.raises(UsageError, match="across channels"):
        session(attention(), compiler)
    with pytest.raises(UsageError, match="live"):
        DnarchConfig(compiler="eager", live=False)
