"""What a backward computes again sees the masks of its forward, whatever computes it."""

from __future__ import annotations

import functools
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import compressor
from tests.own_loop.loops import EXAMPLE, WIDTH, Block, Convolutions, Net, batch, flat, loop, made, opened


class Again(torch.autograd.Function):
    """A checkpoint of somebody's own: runs a module once more in its backward."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            out: Tensor = module(x)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.module(x)
        torch.autograd.backward(y, gradients[0])
        return None, x.grad


def parts(block: nn.Module, x: Tensor, **how: Any) -> Tensor:
    """Parts of a forward that are no modules, one within the other."""
    block.inside = functools.partial(checkpoint, **how)  # type: ignore[assignment]
    out: Tensor = block(x)
    return out


THROUGH: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "not reentrant": functools.partial(checkpoint, use_reentrant=False),
    "reentrant": functools.partial(checkpoint, use_reentrant=True),
    "to the end": functools.partial(checkpoint, use_reentrant=False, early_stop=False),
    "without generators": functools.partial(checkpoint, use_reentrant=True, preserve_rng_state=False),
    "a bound method": lambda block, x: checkpoint(block.forward, x, use_reentrant=False),  # type: ignore[return-value]
    "functions within functions": functools.partial(parts, use_reentrant=False),
    "reentrant functions": functools.partial(parts, use_reentrant=True),
    "a function of ones own": Again.apply,
}


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("how", THROUGH)
def test_a_recomputed_block_is_the_masked_block(how: str, search: str) -> None:
    loop(made(Net, THROUGH[how]), search).like(loop(made(Net), search))


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("how", [how for how in THROUGH if "functions" not in how])
def test_a_recomputed_sequence_is_the_masked_sequence(how: str, search: str) -> None:
    loop(made(Convolutions, THROUGH[how]), search).like(loop(made(Convolutions), search))


class Twice(Net):
    """One block that runs twice, and a loss of its own that is not among the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = x + self.run(self.blocks[0], x)
        self.aside = x.square().mean()
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize("how", ["not reentrant", "reentrant"])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_block_that_runs_twice(search: str, how: str) -> None:
    loop(made(Twice, THROUGH[how]), search).like(loop(made(Twice), search))


@pytest.mark.parametrize("how", ["not reentrant", "reentrant"])
def test_a_loss_that_does_not_come_from_the_outputs(how: str) -> None:
    def gradients(model: Any) -> tuple[Tensor, Tensor]:
        session = opened(model.train())
        model(batch(0)[0])
        model.aside.backward()
        return flat(model.parameters()), flat(session.parameters())

    for mine, expected in zip(gradients(made(Twice, THROUGH[how])), gradients(made(Twice)), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_whole_model_inside_a_checkpoint(reentrant: bool) -> None:
    model = made(Net)

    def call(x: Tensor) -> Any:
        return checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    loop(model, call=call).like(loop(made(Net)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_sequential(reentrant: bool) -> None:
    class Parts(nn.Sequential):
        in_parts = False

        def forward(self, x: Tensor) -> Tensor:
            if self.in_parts and self.training:
                return checkpoint_sequential(list(self), 2, x.requires_grad_(), use_reentrant=reentrant)  # type: ignore
            return super().forward(x)

    def parts(in_parts: bool) -> nn.Module:
        layers = (nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        model = Parts(*layers, nn.Linear(WIDTH, 3))
        model.in_parts = in_parts
        return model

    loop(made(parts, True)).like(loop(made(parts, False)))


def test_modules_wrapped_into_checkpoints() -> None:
    def wrapped(implementation: CheckpointImpl) -> nn.Module:
        model = Net()
        for i in range(len(model.blocks)):
            model.blocks[i] = checkpoint_wrapper(model.blocks[i], checkpoint_impl=implementation)
        return model

    expected = loop(made(Net))
    for implementation in CheckpointImpl:
        found = loop(made(wrapped, implementation))
        found.kept = expected.kept  # names have a part more
        found.like(expected)


def test_a_second_backward_through_one_forward() -> None:
    def gradients(how: str | None) -> tuple[Tensor, Tensor]:
        model = made(Net, None if how is None else THROUGH[how]).train()
        session = opened(model)
        loss = model(batch(0)[0]).square().mean()
        loss.backward(retain_graph=True)
        loss.backward()
        return flat(model.parameters()), flat(session.parameters())

    expected = gradients(None)
    for how in ("not reentrant", "to the end"):
        for mine, theirs in zip(gradients(how), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_several_forwards_and_one_backward() -> None:
    """Twins see one network, and what comes in between sees the whole one."""

    def gradients(how: str | None) -> tuple[Tensor, Tensor, Tensor]:
        model = made(Net, None if how is None else THROUGH[how]).train()
        session = opened(model)
        one, other = model(batch(0)[0]), model(batch(1)[0])
        with torch.no_grad():
            between = model.eval()(EXAMPLE)
        model.train()
        (one * other).sum().backward()
        return flat(model.parameters()), flat(session.parameters()), between

    expected = gradients(None)
    assert torch.equal(expected[2], made(Net).eval()(EXAMPLE))
    for how in ("not reentrant", "reentrant", "a function of ones own"):
        for mine, theirs in zip(gradients(how), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", THROUGH)
def test_a_backward_leaves_nothing_behind(how: str) -> None:
    model = made(Net, THROUGH[how]).train()
    session = opened(model)
    before = [set(vars(module)) for module in model.modules()]
    model(batch(0)[0]).sum().backward()
    assert [set(vars(module)) for module in model.modules()] == before
    for failing in (True, False):
        out = model(batch(0)[0])
        if failing:
            out.register_hook(lambda gradient: 1 / 0)
            model.head.weight.register_hook(lambda gradient: None)
            with pytest.raises(ZeroDivisionError):
                out.sum().backward()
            with torch.no_grad():
                model.eval()(EXAMPLE)  # the next forward tidies up
            model.train()
            assert [set(vars(module)) for module in model.modules()] == before
        else:
            out.sum().backward()
    session.close()
    assert [set(vars(module)) for module in model.modules()] == [set(vars(m)) for m in made(Net).modules()]


@pytest.mark.parametrize("how", THROUGH)
def test_what_a_step_computed_is_freed_with_it(how: str) -> None:
    model = made(Net, THROUGH[how]).train()
    opened(model)
    seen: list[weakref.ref[Tensor]] = []
    model.head.register_forward_hook(lambda module, args, output: seen.append(weakref.ref(module.weight)))
    gc.disable()
    try:
        model(batch(0)[0]).sum().backward()
        assert seen
        assert seen[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [Net, Convolutions])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_a_search_of_the_programs_own(search: str, kind: Any) -> None:
    """On all units, on slices of what is left, and on the network decided on."""
    data = torch.utils.data.TensorDataset(*batch(0, 64))
    loader = torch.utils.data.DataLoader(data, batch_size=16)

    def compressed(how: str | None) -> dict[str, Tensor]:
        model = made(kind, None if how is None else THROUGH[how])
        options = {"patience": 2, "negligible": 0.9} if search == "figs" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = compressor.compress(
                model,
                EXAMPLE,
                {"flops": "50%"},
                data=(loader, loader),
                search=search,
                options=options,
                training=compressor.Training(search_epochs=3, finetune_epochs=0, batch_size=16),
            )
        return found.model.state_dict()

    expected = compressed(None)
    for how in ("not reentrant", "reentrant"):
        found = compressed(how)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in expected.items()}
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_checkpoints_elsewhere_are_as_ever() -> None:
    opened(made(Net))
    block = made(Block)
    x = torch.randn(4, WIDTH, requires_grad=True)
    expected = torch.autograd.grad(block(x).sum(), list(block.parameters()))
    for reentrant in (False, True):
        block.zero_grad()
        checkpoint(block, x, use_reentrant=reentrant).sum().backward()  # type: ignore[union-attr]
        assert all(torch.equal(p.grad, g) for p, g in zip(block.parameters(), expected, strict=True))
