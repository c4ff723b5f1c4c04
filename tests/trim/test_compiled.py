"""What the program tries out with a model that is compiled in place runs as it is written: compilers are slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import compressor
from tests.own_loop.loops import EXAMPLE, Convolutions, Net, loop, made, opened

Compiled: list[Any] = []


def counting(graph: Any, inputs: Any) -> Callable[..., Any]:
    Compiled.append(graph)
    forward: Callable[..., Any] = graph.forward
    return forward


@pytest.mark.parametrize("kind", [Net, Convolutions])
def test_nothing_is_compiled_to_look_at_a_model(kind: Any) -> None:
    Compiled.clear()
    model = made(kind)
    model.compile(backend=counting)
    small = compressor.compress(model, EXAMPLE, {"flops": "50%"}, search="oneshot").model
    session = opened(model)
    loop(model, session=session)
    assert not Compiled
    assert small(EXAMPLE).shape == session.shrink_()(EXAMPLE).shape
    assert Compiled
    torch._dynamo.reset()
