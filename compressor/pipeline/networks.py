"""The networks that one search left for many budgets, with the weights that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from compressor.nn.tensors import state
from compressor.pipeline.settings import Scores
from compressor.pipeline.stages import Pipeline
from compressor.search.front import Candidate, Front
from compressor.search.points import Point
from compressor.train import METRICS


@dataclass
class Networks:
    """What is needed to build any of them without training.

    Attributes:
        front: the networks that no other beats, each a ``Point``.
        weights: all parameters and buffers of the network that was searched in, by name.
        units: by cost the unit that its values are in.
        scores: of the original, and the metric that points are scored by.
        evaluated: all networks that were tried, as ``Point.row``.
        history: how the space that was searched in changed over the training.
    """

    front: Front[Point]
    weights: Mapping[str, Tensor]
    units: Mapping[str, str]
    scores: Scores
    evaluated: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def networks_of(pipeline: Pipeline) -> Networks | None:
    """The networks that a finished pipeline's search left; None where it looked for one alone."""
    points = pipeline.found.points
    if not points:
        return None
    problem, base = pipeline.problem, pipeline.settings.base
    original = {name: term.original for name, term in problem.terms.items()}
    if problem.device is not None:
        original["latency"] = problem.device.original_ms
    if base is not None:
        original |= {name: value for name, value in base.costs.items() if name in original}
    names = [name for name in original if all(name in point.costs for point in points)]
    candidates = [
        Candidate(
            point.name, {name: point.costs[name] for name in names}, point.score, point, {"settings": point.settings}
        )
        for point in points
    ]
    metric = METRICS.get(pipeline.scores.metric)
    asked = [constraint.name for constraint in problem.constraints if constraint.name in names]
    front = Front(
        candidates,
        {name: original[name] for name in names},
        lower_is_better=metric is not None and metric.lower_is_better,
        compared=asked or None,
    )
    weights = state(pipeline.searched)
    if pipeline.searched is pipeline.model:  # the user's own tensors, which may change before a network is picked
        weights = {name: tensor.clone() for name, tensor in weights.items()}
    return Networks(
        front,
        weights,
        {name: problem.terms[name].unit for name in names},
        pipeline.scores,
        pipeline.found.evaluated,
        [entry for entry in pipeline.found.history if isinstance(entry.get("policies"), dict)],
    )
