"""From a trained supernet to the networks that no other beats, and to the one that the budgets ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.arrays import BoolArray, FloatArray, IntArray, UnitMask
from compressor.costs import CostTerm
from compressor.data import Data
from compressor.data.base import Split
from compressor.data.subsampled import Subsampled
from compressor.errors import CompressorError, TrainingError, UsageError
from compressor.process.pool import WHY_DEAD, NotHandedOver, side_by_side
from compressor.process.ranks import current
from compressor.search.base import SearchContext
from compressor.search.methods.supernet.config import SupernetConfig
from compressor.search.methods.supernet.evolution import Evolution, Scored, unbeaten
from compressor.search.methods.supernet.learner import SupernetLearner
from compressor.search.methods.supernet.scoring import Ground, Scorer, merit, score_in_worker, statistics
from compressor.search.points import Point
from compressor.search.result import SearchResult
from compressor.storage.files import atomic_write_json
from compressor.storage.reading import LARGE, read_json
from compressor.train.rng import derive_seed
from compressor.train.splits import task_of

Task = tuple[str, UnitMask, BoolArray]

#: Batches of 128 samples for the statistics of the networks that are kept.
_STATISTICS = 50
#: Networks that are scored between two notes.
_TOGETHER = 8


class Selection:
    """The evolutionary search over one trained supernet."""

    def __init__(
        self,
        context: SearchContext,
        data: Data,
        config: SupernetConfig,
        learner: SupernetLearner,
        terms: Mapping[str, CostTerm],
        scores: FloatArray,
    ) -> None:
        self.context, self.data, self.config, self.learner, self.scores = context, data, config, learner, scores
        self.space, self.subnets, self.terms = learner.space, learner.subnets, dict(terms)
        self._seed = derive_seed(context.seed, "selection")
        self._scorer = Scorer(
            data.train,
            _at_most(data.val, config.scored_on),
            task_of(data),
            context.loss_fn,
            config.recalibration,
            self._seed,
        )
        self._ground = Ground(context.model, context.graph, self._scorer)
        self._notes = Notes(context.checkpoint)
        self._lower_is_better = False  # of the metric, which the first score tells

    def run(self, history: list[dict[str, Any]]) -> SearchResult:
        """Search, score the best anew on all held-out samples, and decide.

        Raises:
            TrainingError: no subnet has a score.
        """
        evolution = Evolution(
            self.space,
            self.learner.allowed().numpy(),
            costs=lambda choices: self.space.costs(self.terms, choices),
            limits={c.name: c.limit for c in self.context.constraints},
            score=self._scored,
            population=self.config.population,
            mutation=self.config.mutation,
            seed=self._seed,
        )
        tried = evolution.run(self.config.generations, self._told(evolution))
        _require_scores(tried)
        points = self._points(evolution.front())
        chosen = max(points, key=lambda point: (self._merit(point), -point.costs["flops"]))
        evaluated = [self._row(f"t{i}", each) for i, each in enumerate(tried)]
        return SearchResult(
            chosen.units,
            self._priority(chosen),
            history,
            chosen.gates,
            -torch.arange(len(self.space.graph.blocks), dtype=torch.float64),
            points=points,
            evaluated=evaluated,
        )

    def _scored(self, drawn: Sequence[IntArray]) -> list[float]:
        """Merits, those known from before a kill as they are."""
        tasks = [(key_of(c), *self.space.hard(c)) for c in drawn if key_of(c) not in self._notes.merits]
        if self.config.workers > 1 and len(tasks) > 1 and current().size == 1:
            tasks = self._side_by_side(tasks)
        for key, units, gates in tasks:
            self._notes.add(key, self._ground.score(units, gates))
        self._notes.save()
        return [self._notes.merits[key_of(choices)] for choices in drawn]

    def _side_by_side(self, tasks: list[Task]) -> list[Task]:
        """Score in processes; returns what is left, which is all where nothing can be handed over."""
        done = set[str]()

        def note(task: Task, found: float) -> None:
            done.add(task[0])
            self._notes.add(task[0], found)

        try:
            side_by_side(score_in_worker, self._ground, tasks, self.config.workers, note, died=_died)
        except NotHandedOver as error:
            self.context.warn(
                "Subnets are scored one after the other, as model or data cannot be handed to other processes "
                f"({error})."
            )
        return [task for task in tasks if task[0] not in done]

    def _points(self, front: Sequence[Scored]) -> list[Point]:
        """The front anew: scores on all held-out samples, which a lucky few do not keep, and lasting statistics."""
        whole = Scorer(
            self.data.train, self.data.val, task_of(self.data), self.context.loss_fn, _STATISTICS, self._seed
        )
        networks: dict[tuple[int, ...], dict[str, Any]] = {}
        again = []
        for each in front:
            network = self.subnets.network(*self.space.hard(each.choices))
            found = whole(network)
            self._lower_is_better = found.metric.lower_is_better
            again.append(Scored(each.choices, each.costs, merit(found)))
            networks[each.key] = statistics(network)
        kept = unbeaten([each for each in again if np.isfinite(each.merit)], [c.name for c in self.context.constraints])
        _require_scores(kept)
        return [self._point(f"s{i}", each, networks[each.key]) for i, each in enumerate(kept)]

    def _point(self, name: str, found: Scored, known: Mapping[str, Any]) -> Point:
        units, gates = self.space.hard(found.choices)
        row = self._row(name, found)
        return Point(name, units, gates, row["costs"], row["score"], row["settings"], known)

    def _row(self, name: str, found: Scored) -> dict[str, Any]:
        settings = self.space.settings(found.choices)
        return {"name": name, "costs": dict(found.costs), "score": self._signed(found.merit), "settings": settings}

    def _merit(self, point: Point) -> float:
        return self._signed(point.score)

    def _signed(self, value: float) -> float:
        """From a merit to the score of the metric, and back."""
        return -value if self._lower_is_better else value

    def _priority(self, chosen: Point) -> torch.Tensor:
        """What goes first if some of the decision has to be made again."""
        priority = self.scores.astype(np.float64).copy()
        for each in self.space.dimensions:
            if each.kind == "kernel":
                priority[each.units] = -each.unit_from
            elif not each.nested:
                priority[each.units] = chosen.units[each.units]
        return torch.from_numpy(priority)

    def _told(self, evolution: Evolution) -> Any:
        def tell(generation: int) -> None:
            self.context.tell(
                f"  selection {generation} of {self.config.generations}: {len(evolution.tried)} subnets tried, "
                f"{len(evolution.front())} that no other beats"
            )

        return tell


class Notes:
    """Merits of subnets that were scored, by ``key_of`` their choices, in a file beside the training's checkpoint."""

    def __init__(self, checkpoint: Path | None) -> None:
        ranks = current()
        self._path = None if checkpoint is None or not ranks.is_first else checkpoint.with_suffix(".selection.json")
        self.merits: dict[str, float] = ranks.first(self._read)
        self._saved = len(self.merits)

    def _read(self) -> dict[str, float]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            read = read_json(self._path, "delete it", limits=LARGE, allow_nan=True)
        except UsageError:
            return {}  # damaged: scored again
        if not isinstance(read, dict) or not all(isinstance(merit, float) for merit in read.values()):
            return {}
        return dict(read)

    def add(self, key: str, merit: float) -> None:
        """Note one, and write all now and then."""
        self.merits[key] = merit
        if len(self.merits) >= self._saved + _TOGETHER:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        if self._path is not None and len(self.merits) > self._saved:
            atomic_write_json(self._path, self.merits, allow_nan=True)
            self._saved = len(self.merits)


def key_of(choices: IntArray) -> str:
    """The name of a subnet: ``3,0,7``."""
    return ",".join(map(str, choices.tolist()))


def _require_scores(found: Sequence[Scored]) -> None:
    """Raise ``TrainingError`` if no subnet has a score."""
    if not found:
        raise TrainingError(
            "No subnet has a score, as their outputs are not finite. Search again with a lower rate (--supernet.lr), "
            "and look for NaN in the data."
        )


def _died(task: Task) -> Exception:
    return CompressorError(
        f"The process that scored the subnet {task[0][:60]} died; {WHY_DEAD}. What was scored is kept: run again, with "
        "fewer workers (--supernet.workers)."
    )


def _at_most(split: Split, samples: int) -> Split:
    return split if len(split) <= samples else Subsampled(split, samples / len(split))
