"""What is ahead by chance is no reason for another kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.pipeline.events import Message
from compressor.search.methods.dash.decision import leads
from compressor.search.methods.dash.evidence import Evidence
from tests.search.test_dash import batches, staged


def watched(gradients: torch.Tensor, beside: list[int], momentum: float = 0.9) -> tuple[nn.Parameter, Evidence]:
    logits = nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = torch.optim.SGD([{"params": [logits]}], lr=0.05, momentum=momentum, nesterov=momentum > 0)
    optimizer.state[logits] = {"momentum_buffer": torch.zeros_like(logits)}
    found = Evidence(logits, torch.tensor(beside))
    found.follow(optimizer)
    for gradient in gradients:
        logits.grad = gradient.clone()
        optimizer.step()
        found.note()
    return logits, found


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_standard_errors_are_those_of_the_gradients(momentum: float) -> None:
    gradients = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [0.0, 0.5, -0.5, 0.0, 2.0]
    )
    beside = [0, 0, 0, 3, 3]
    logits, found = watched(gradients, beside, momentum)
    ahead = -(gradients - gradients[:, beside]).double()
    expected = ahead.sum(0) / ahead.square().sum(0).sqrt()
    torch.testing.assert_close(found.standard_errors(), expected.nan_to_num(), rtol=1e-4, atol=1e-5)
    for index, other in enumerate(beside):  # what was pushed ahead is ahead
        if abs(float(expected[index])) > 3:
            assert torch.sign(logits[index] - logits[other]) == torch.sign(expected[index])


def test_what_was_watched_goes_on_after_a_kill() -> None:
    gradients = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    _, whole = watched(gradients, [0, 0, 0])
    first, begun = watched(gradients[:17], [0, 0, 0])
    logits = nn.Parameter(first.detach().clone())
    optimizer = torch.optim.SGD([{"params": [logits]}], lr=0.05, momentum=0.9, nesterov=True)
    optimizer.state[logits] = {"momentum_buffer": begun.state_dict()["remembered"].clone()}
    again = Evidence(logits, torch.zeros(3, dtype=torch.int64))
    again.load_state_dict(begun.state_dict())
    again.follow(optimizer)
    for gradient in gradients[17:]:
        logits.grad = gradient.clone()
        optimizer.step()
        again.note()
    assert torch.equal(again.standard_errors(), whole.standard_errors())


LIKELY = np.array([0.25, 0.4, 0.3, 0.05, 0.0])


def test_within_doubt_all_are_as_good_and_what_is_there_is_preferred() -> None:
    found = leads(LIKELY, np.array([0.0, 2.0, -1.0, -2.9, 0.0]), 3.0, 0)
    assert found.argmax() == 0
    assert np.all(found[:4] > -1e-3)
    assert found[4] < -5, "what cannot be had"


def test_beyond_doubt_leads_count_in_both_directions() -> None:
    found = leads(LIKELY, np.array([0.0, 6.0, 1.0, -6.0, 0.0]), 3.0, 0)
    assert found.argmax() == 1
    assert found[1] == pytest.approx(np.log(0.4 / 0.25) / 2, abs=1e-5), "half of it is beyond"
    assert found[3] == pytest.approx(np.log(0.05 / 0.25) / 2, abs=1e-5)
    assert leads(LIKELY, np.array([0.0, -6.0, 1.0, 6.0, 0.0]), 3.0, 0).argmax() == 0, (
        "pushed one way, ahead in the other"
    )


def test_without_doubt_the_likeliest_is_taken() -> None:
    for current in range(4):
        assert leads(LIKELY, np.zeros(5), 0.0, current).argmax() == 1


def test_where_what_is_there_cannot_be_had_the_likeliest_is_ahead() -> None:
    assert leads(np.array([0.0, 0.2, 0.5, 0.3]), np.array([0.0, 1.0, 1.0, 9.0]), 3.0, 0).argmax() == 2


@pytest.mark.parametrize(("doubt", "kept"), [(1e6, True), (0.0, False)])
def test_a_search_that_cannot_tell_keeps_what_is_there_and_says_so(doubt: float, kept: bool) -> None:
    model, x = staged()
    told: list[Any] = []
    result = compressor.compress(
        model,
        x,
        {"flops": "200%"},
        data=(batches(x), batches(x, 1)),
        search="dash",
        options={"doubt": doubt, "share": 1.0},
        training=compressor.Training(search_epochs=2, finetune_epochs=0, batch_size=16, tune="none"),
        listeners=[told.append],
    )
    changed = [choice for choice in result.report.choices if choice.before != choice.after]
    assert (not changed) == kept
    said = [event.text for event in told if isinstance(event, Message)]
    assert any(text.startswith("At 5 of 5 convolutions no kernel is ahead") for text in said) == kept
