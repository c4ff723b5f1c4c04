"""Masks act in models that are compiled, whenever and however that is done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.nn.modules import as_written
from compressor.pipeline.session import Session
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, Run, batch, loop, made, opened


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


Call = Callable[[Tensor], Any]


def before(model: Any, backend: str) -> tuple[Call, Session]:
    compiled: Any = torch.compile(model, backend=backend)
    return compiled, opened(compiled)


def before_and_run(model: Any, backend: str) -> tuple[Call, Session]:
    compiled: Any = torch.compile(model, backend=backend)
    for training in (False, True):
        compiled.train(training)(EXAMPLE)
    return compiled, opened(model)


def after(model: Any, backend: str) -> tuple[Call, Session]:
    session = opened(model)
    return torch.compile(model, backend=backend), session


def in_place(model: Any, backend: str) -> tuple[Call, Session]:
    model.compile(backend=backend)
    model(EXAMPLE)
    return model, opened(model)


def in_place_after(model: Any, backend: str) -> tuple[Call, Session]:
    session = opened(model)
    model.compile(backend=backend)
    return model, session


def parts(model: Any, backend: str) -> tuple[Call, Session]:
    for part in model.children():
        part.compile(backend=backend)
    model.train()(EXAMPLE)
    return model, opened(model)


def parts_after(model: Any, backend: str) -> tuple[Call, Session]:
    session = opened(model)
    for part in model.modules():
        if part is not model:
            part.compile(backend=backend)
    return model, session


def within_a_function(model: Any, backend: str) -> tuple[Call, Session]:
    session = opened(model)

    @torch.compile(backend=backend)
    def call(x: Tensor) -> Any:
        return model(x)

    return call, session


WAYS = [before, before_and_run, after, in_place, in_place_after, parts, parts_after, within_a_function]
INDUCTOR = [pytest.param("inductor", marks=pytest.mark.slow)]


def trained(way: Callable[..., Any], backend: str, kind: Any) -> Run:
    model = made(kind)
    call, session = way(model, backend)

    def in_between(x: Tensor) -> Any:
        with torch.no_grad():
            model.eval()
            call(x)
        model.train()
        return call(x)

    return loop(model, call=in_between, session=session)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", *INDUCTOR])
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_loop_is_the_loop(way: Callable[..., Any], backend: str) -> None:
    trained(way, backend, Convolutions).same(loop(made(Convolutions)))


@pytest.mark.parametrize("backend", ["aot_eager", *INDUCTOR])
def test_calls_across_channels_are_masked_too(backend: str) -> None:
    trained(before_and_run, backend, Net).same(loop(made(Net)))


def test_a_whole_step_that_is_compiled() -> None:
    model = made(Net).train()
    session = opened(model)
    reference = made(Net).train()
    expected = opened(reference)

    def step(model: Any, session: Session, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), y) + session.cost_loss()
        loss.backward()
        return loss

    compiled = torch.compile(step, backend="aot_eager")
    for i in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled(model, session, *batch(i))
        step(reference, expected, *batch(i))
        for a, b in zip(session.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        for each in (session, expected):
            each.step()


def test_backwards_that_are_compiled() -> None:
    from torch._dynamo import compiled_autograd

    with compiled_autograd._enable(torch.compile(backend="eager")):
        found = loop(made(Net))
    found.like(loop(made(Net)))


def test_the_compiler_goes_on_when_the_session_is_over() -> None:
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    model = made(Net)
    compiled = torch.compile(model, backend=counter)
    session = opened(model)
    compiled.train()(EXAMPLE).sum().backward()
    assert not counter.frame_count
    session.step()
    small = session.finish()
    compiled(EXAMPLE)
    assert counter.frame_count == 1
    torch.compile(small, backend=counter)(EXAMPLE)
    assert counter.frame_count == 2


def test_what_must_be_one_graph_is_refused_with_the_reason() -> None:
    model = made(Net).train()
    opened(model)

    @torch.compile(backend="eager", fullgraph=True)
    def step(x: Tensor) -> Any:
        return model(x) * 2

    with pytest.raises(torch._dynamo.exc.Unsupported, match="masks of an open session"):
        step(EXAMPLE)


def test_as_written_ends_with_the_last_that_asked_for_it() -> None:
    import threading

    from torch._dynamo import eval_frame

    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with as_written():
            inside.set()
            go.wait(10)

    assert eval_frame._stance.stance == "default"
    with as_written():
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
    assert eval_frame._stance.stance == "force_eager"
    go.set()
    thread.join()
    assert eval_frame._stance.stance == "default"


def test_layers_of_ones_own_stay_as_they_are() -> None:
    layer = nn.Linear(2, 2)
    compiled = torch.compile(layer, backend="eager")
    with as_written():
        assert torch.equal(compiled(torch.ones(1, 2)), layer(torch.ones(1, 2)))
