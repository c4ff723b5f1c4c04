"""Which network is the better one, whatever metric scores them: more or less is better, above zero or below."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from torch import nn

import compressor
from compressor.errors import TrainingError
from compressor.search.methods.pooling import method as pooling
from compressor.search.methods.pooling.decision import Rank, in_order
from compressor.search.methods.pooling.learner import PoolingLearner
from compressor.search.methods.supernet import scoring
from compressor.train import Metrics
from compressor.train.objectives.objective import LOSS, TOP_1
from tests.search.staged import X, data_of, staged
from tests.search.test_supernet import run

FEW: dict[str, Any] = {"population": 6, "generations": 0, "scored_on": 16, "epochs": 0}


def scored(value: float, *, lower: bool) -> Metrics:
    return Metrics(None, abs(value), 1, value, LOSS if lower else TOP_1)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("middle", [-2.0, 0.0, 2.0])
def test_subnets_have_the_scores_of_their_metric(lower: bool, middle: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def evaluate(network: nn.Module, *_: Any, **__: Any) -> Metrics:
        size = sum(parameter.numel() for parameter in network.parameters())
        given.append(middle + (-1 if lower else 1) * math.sin(size))
        return scored(given[-1], lower=lower)

    monkeypatch.setattr(scoring, "evaluate", evaluate)
    decision = run({"flops": "60%"}, **FEW).decision
    assert {point.score for point in decision.points} <= set(given)
    assert {row["score"] for row in decision.evaluated} <= set(given)
    best = (min if lower else max)(decision.points, key=lambda point: point.score)
    assert best.score == (min if lower else max)(given)
    assert np.array_equal(decision.units, best.units)


def test_subnets_that_are_lost_on_all_samples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(_: nn.Module, split: Any, **__: Any) -> Metrics:
        return scored(math.nan if len(split) > FEW["scored_on"] else 0.5, lower=False)

    monkeypatch.setattr(scoring, "evaluate", evaluate)
    with pytest.raises(TrainingError, match="No subnet has a score"):
        run({"flops": "60%"}, **FEW)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("lost", [None, math.nan])
def test_a_configuration_that_is_lost_when_trained_on_is_not_taken(
    lower: bool, lost: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Metrics(None, None, 1, lost, LOSS if lower else TOP_1), scored(0.7, lower=lower)]
    monkeypatch.setattr(pooling, "evaluate", lambda *_, **__: found.pop(0))
    taken: list[Any] = []
    usual = PoolingLearner.taking

    def taking(self: PoolingLearner, *arguments: Any) -> Any:
        taken.append(usual(self, *arguments))
        return taken[-1]

    monkeypatch.setattr(PoolingLearner, "taking", taking)
    training = compressor.Training(search_epochs=0, finetune_epochs=0, batch_size=8, tune="none")
    options = {"mixtures": 1, "top_k": 2, "max_steps": 1, "top_epochs": 1}
    result = compressor.compress(
        staged(), X, {"flops": "200%"}, data=data_of(16), search="pooling", options=options, training=training
    )
    first = result.report.ranking[0]
    assert first.chosen
    assert first.score == 0.7
    priority, ranking = taken[-1].priority, taken[-1].ranking
    assert taken[-1].units[int(priority.argmax())]
    assert (priority > 0).sum() == len(ranking), "what has no rank goes first"


def test_ranks_with_scores_come_before_those_without() -> None:
    for lower in (True, False):
        told = [(0.9, None), (0.1, 0.2), (0.5, 0.7), (0.3, 0.7)]
        ranks = [Rank(i, 0, average, score, lower) for i, (average, score) in enumerate(told)]
        names = [each.configuration for each in in_order(ranks)]
        assert names == ([1, 2, 3, 0] if lower else [2, 3, 1, 0])
