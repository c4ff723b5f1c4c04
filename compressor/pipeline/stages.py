"""The main job, stage by stage. Each stage's result can be stored and taken up again, so a killed job goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.history import remember
from compressor.costs import REPORTED_COSTS, CostTerm
from compressor.errors import UsageError
from compressor.graph import Graph
from compressor.graph.inputs.input_axes import arguments
from compressor.graph.programs import opened
from compressor.nn.copying import deep_copy, same_tensors
from compressor.nn.modules import build_lazy, require_whole_tensors
from compressor.nn.quantization import observe_anew_
from compressor.nn.tensors import example_of, fill, state, to_device
from compressor.pipeline.alike import require_same_work
from compressor.pipeline.bottlenecks import warn_of_bottlenecks
from compressor.pipeline.events import Decision, Events, Metric
from compressor.pipeline.one_schedule import steps_after, steps_before
from compressor.pipeline.problem import Problem
from compressor.pipeline.settings import Scores, Settings
from compressor.process.ranks import current
from compressor.search.result import SearchResult
from compressor.trim import Check
from exporters.example import Example

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.latency.elsewhere import MeasuredElsewhere
    from compressor.latency.refinement import RefinementLog
    from compressor.latency.target import LatencySession
    from compressor.report.tuning import Tuning
    from compressor.storage.shared_job import JobStages


class Pipeline:
    """One compression. Call the stages in order: ``trace``, ``train``, ``assess``, ``search``, ``trim``, ``tune``,
    ``finetune``.

    What is asked for and cannot be had is found by ``trace``, before anything is trained.

    Attributes:
        model: the original; trained in place by ``train``, otherwise never changed.
        compressed: the trimmed model, from ``trim`` on.
        problem: the trace, its costs and budgets.
        held: how the latency budget was held on the device; ``held_before`` says that an earlier round did it.
        before: the round whose result ``model`` is, if there was one; its original teaches, and is what scores are
            compared with.
        searched: the network that was searched in: with the weights that the search trained, if it trains.
        found: what the search decided, before anything had to be decided again.
        tuning: the trials that fine-tuning's settings were chosen by, if there were any.
    """

    compressed: nn.Module
    architecture: Architecture
    check: Check
    decision: SearchResult
    found: SearchResult

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        settings: Settings,
        *,
        example_kwargs: dict[str, Any] | None = None,
        data: Data | None = None,
        job: JobStages | None = None,
        events: Events | None = None,
        before: Pipeline | None = None,
    ) -> None:
        model = opened(model)
        require_whole_tensors(model)
        build_lazy(model, *arguments(example_inputs, example_kwargs))
        # Its tensors are the user's, its modules are not: what other threads do with the model they were given is not
        # disturbed by what a trace or a search puts on modules for a while.
        self.model, self.settings, self.data, self.job = same_tensors(model), settings, data, job
        self.events = events or Events()
        self.device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self.example_inputs = to_device(example_inputs, self.device)
        self.example_kwargs = to_device(example_kwargs or {}, self.device)
        self.scores = Scores()
        self.problem = Problem(self.model, self.example, settings, self.events.warn)
        self.problem.absorbs = settings.absorb and data is None
        self._before = before
        self._teacher: nn.Module = self.model if before is None else before._teacher
        self.held: RefinementLog | None = None
        self.held_before = False
        self.tuning: Tuning | None = None
        self.searched = self.model

    @property
    def example(self) -> Example:
        """The whole call that the model was traced with."""
        return example_of(self.example_inputs, self.example_kwargs)

    def run(self) -> None:
        """All stages."""
        try:
            self.trace()
            self.train()
            self.assess()
            self.search()
            self.trim()
            self.tune()
            self.finetune()
        finally:
            self.problem.close()

    # ---- stages

    def trace(self) -> None:
        """Capture, costs, budgets. Raises before any search if a budget cannot be met, or processes differ."""
        require_same_work(current(), self.model, self.example, self.settings, self.data)
        if self.data is not None:
            from compressor.data.batches import require_call
            from compressor.data.classes import remarks

            require_call(self.model, self.data.example_inputs)
            self._require_lesson()
            for remark in remarks(self.data):
                self.events.warn(remark)
        self._require_one_size()
        problem = self.problem
        with self.events.stage("trace"):
            problem.trace(REPORTED_COSTS)
            if self.data is not None:
                from compressor.pipeline.fits import require_fit

                require_fit(self.model, self.example, self.data)
            if self.graph.inputs is not None and not self.graph.inputs.batched:
                self.events.info("  no batch axis: costs are those of the inputs as they are")
        if problem.is_measured:
            with self.events.stage("measure the target"):
                device = problem.measure(
                    self.job, copied=bool(self.settings.train_epochs), progress=self.events.tenths()
                )
            for line in device.prediction.warnings:
                self.events.warn(line)
            self.events.info(device.prediction.summary)
        with self.events.stage("budgets"):
            problem.limit()
        if self.nothing_to_do and self._before is not None:
            self.events.info("  every budget holds already, so nothing is taken out")
        elif self.nothing_to_do:
            self.events.warn(
                "Nothing to do: every budget is at or above what the model already costs "
                f"({', '.join(problem.summary(c) for c in problem.constraints)})."
            )
        self._require_trainable()

    def train(self) -> None:
        """Train the original first, if asked to."""
        if not self.settings.train_epochs or self.data is None:
            return
        with self.events.stage("train"):
            if not self._restore("train", self.model):
                self._fit("train", self.model, self.settings.train_epochs)
                self._store("train", {}, self.model)

    def assess(self) -> None:
        """How good the original is."""
        if self._before is not None:
            known = self._before.scores
            self.scores = replace(known, after_search=None, after_finetune=None)
        elif self.data is not None:
            with self.events.stage("evaluate"):
                self.scores.split = "test" if self.data.test is not None else "val"
                self.scores.before, self.scores.samples = self._score("before", self.data, self.model)

    def search(self) -> None:
        """Decide what is kept."""
        from compressor.train.modes import deterministic

        with self.events.stage("search"), deterministic(self.device):
            self.decision = self.found = self._search()

    def _search(self) -> SearchResult:
        """What is stored of the search, or what it gives now."""
        stored = self.job.stage("search") if self.job is not None else None
        trains = self.settings.method.trains and not self.nothing_to_do
        # The original must stay what it was: it is the teacher, and what the result is compared with.
        self.searched = deep_copy(self.model) if trains else self.model
        if stored is not None:
            if trains:
                fill(self.searched, {k[2:]: t for k, t in stored.tensors.items() if k.startswith("m.")})
            return SearchResult.stored(stored.data, stored.tensors)
        if self.nothing_to_do:
            units = self.graph.all_units()
            found = SearchResult(units, torch.ones(self.graph.n_units, dtype=torch.float64), [])
        else:
            context = self.problem.context(
                self.searched,
                data=self.data,
                seed=self.settings.seed,
                loss_fn=self.settings.loss_fn,
                teacher=self._teacher if trains and self.settings.distill else None,
                distill=self.settings.distill,
                steps=self.settings.steps,
                lr=self.settings.lr,
                steps_after=steps_after(self.settings, self.data),
                checkpoint=self.job.checkpoint("search") if self.job is not None else None,
                progress=self.events.progress("search"),
                tell=self.events.info,
            )
            found = self.settings.method().run(context)
            current().require_same("decisions", (found.units.tobytes(), found.gates_or_all(self.graph).tobytes()))
        if self.job is not None:
            tensors = found.tensors(self.graph)
            if trains:
                tensors |= {f"m.{name}": t for name, t in state(self.searched).items()}
            self.job.store("search", found.noted(), tensors)
        return found

    def trim(self) -> None:
        """Trim and verify; decide again where trimming was not exact; recalibrate BatchNorm; evaluate."""
        with self.events.stage("trim and verify"):
            self._trim(self.decision)
        if self.nothing_to_do and self._before is not None:
            self.held = self._before.held  # the network is the one that was timed then
            self.held_before = self.held is not None
        elif self.problem.device is not None and not self.nothing_to_do:
            with self.events.stage("check on the device"):
                self._hold_on_device(self.problem.device)
        self._tell_decision()
        warn_of_bottlenecks(self.problem, self.decision)
        if self.problem.absorbed:
            self.events.info(f"  {self.problem.absorbed} layers take up the mean of channels that are gone (--absorb)")
        if self.data is None:
            self._set_statistics()
            return
        with self.events.stage("evaluate"):
            self._set_statistics()
            self.scores.after_search, _ = self._score("after-search", self.data, self.compressed)

    def tune(self) -> None:
        """Choose the settings of fine-tuning by short trials, if asked to."""
        settings = self.settings
        if settings.grid == "none" or self.data is None or self.untouched:
            return
        from compressor.pipeline.tuning import tuned

        with self.events.stage("tune"):
            self.tuning = tuned(
                self.compressed, self.data, settings, teacher=self._teacher, job=self.job, events=self.events
            )

    def finetune(self) -> None:
        """Train what is left, with the original as teacher if distillation is asked for."""
        if not self.settings.finetune_epochs or self.data is None or self.untouched:
            return
        from compressor.pipeline.tuning import chosen_hyperparameters, set_dropout_

        with self.events.stage("finetune"):
            hyperparameters = chosen_hyperparameters(self.tuning)
            if hyperparameters is not None:
                set_dropout_(self.compressed, hyperparameters.dropout)
            if not self._restore("finetune", self.compressed):
                epochs = self.settings.finetune_epochs
                before = 0 if self.nothing_to_do else steps_before(self.settings, self.data, self.decision)
                how: dict[str, Any] = {"hyperparameters": hyperparameters, "steps_before": before}
                self._fit("finetune", self.compressed, epochs, teacher=self._teacher, **how)
                self._store("finetune", {}, self.compressed)
        with self.events.stage("evaluate"):
            self.scores.after_finetune, _ = self._score("after-finetune", self.data, self.compressed)

    # ---- what the stages found

    @property
    def graph(self) -> Graph:
        """The trace."""
        return self.problem.graph

    @property
    def nothing_to_do(self) -> bool:
        """Whether the model is within every budget already."""
        return self.problem.nothing_to_do

    @property
    def untouched(self) -> bool:
        """Whether the result is the network that the user gave: there is nothing to fine-tune then."""
        return self.nothing_to_do and self._before is None

    @property
    def trained_epochs(self) -> int:
        """Epochs that the compressed network was trained for, in the search and after it."""
        if self.data is None or self.untouched:
            return 0
        trains = self.settings.method.trains and not self.nothing_to_do and self.decision.trained
        searched = int(getattr(self.settings.config, "epochs", 0)) if trains else 0
        return self.settings.finetune_epochs + searched

    def reached(self, term: CostTerm) -> float:
        """A cost of the compressed model."""
        return self.problem.reached(term, self.decision)

    # ---- inner workings

    def _require_trainable(self) -> None:
        from compressor.nn.generated import computed

        settings = self.settings
        searched = settings.finetune_epochs or settings.method.trains
        trains = settings.train_epochs or (searched and not self.untouched)
        if self.data is None or not trains or computed(self.model) is not None:
            return
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise UsageError(
                f"All parameters of {self.graph.model_class} are frozen, so there is nothing to train; call "
                "requires_grad_(True) on what should be, or search with oneshot and finetune for 0 epochs."
            )

    def _require_lesson(self) -> None:
        """Find out before any work that there is nothing to distil."""
        from compressor.train.objectives.objective import objective, require_lesson

        if self.data is not None and (self.settings.distill or self.settings.method.distils):
            require_lesson(objective(self.data.task))

    def _require_one_size(self) -> None:
        """Find out before the search that a network with a lowered resolution will not run on what it is tested on."""
        if self.data is None or self.data.test is None or "resolution" not in self.settings.config.decides:
            return
        inputs = next(iter(self.data.test.batches(1)), (None,))[0]
        others = ",".join(sorted(self.settings.config.decides - {"resolution"}))
        cure = f"leave resolution out (--{self.settings.search}.learn {others}), or pass data of one size"
        self.problem.require_one_size(inputs, "The test split has inputs of", cure)

    def _trim(self, decision: SearchResult) -> tuple[SearchResult, nn.Module]:
        self.decision, result = self.problem.trim(self.searched, decision)
        self.compressed, self.architecture, self.check = result.model, result.architecture, result.check
        observe_anew_(self.compressed)
        remember(self.compressed, self.architecture.to_json(), self.model)
        return self.decision, self.compressed

    def _hold_on_device(self, device: LatencySession | MeasuredElsewhere) -> None:
        diary = self.job.diary("device") if self.job is not None else None
        self.held, network = self.problem.hold_on_device(device, self.decision, self._trim, diary)
        if self.decision is not network:
            self._trim(network)

    def _set_statistics(self) -> None:
        """Running statistics of normalisations: those of the trimmed network."""
        if self.data is not None and not self.nothing_to_do:
            from compressor.train import recalibrate_batchnorm

            recalibrate_batchnorm(self.compressed, self.data.train, seed=self.settings.seed)

    def _tell_decision(self) -> None:
        costs = {name: self.reached(term) for name, term in self.problem.terms.items()}
        units, blocks = self.decision.units[: self.graph.n_units], self.decision.gates_or_all(self.graph)
        self.events.emit(Decision(costs, int(units.sum()), len(units), int(blocks.sum()), len(blocks)))

    def _fit(self, name: str, model: nn.Module, epochs: int, *, teacher: nn.Module | None = None, **how: Any) -> None:
        from compressor.pipeline.training import fit

        checkpoint = self.job.checkpoint(name) if self.job is not None else None
        data: Any = self.data
        watch = self.events.progress(name)
        told: dict[str, Any] = {"checkpoint": checkpoint, "progress": watch, "anew": self.events.info, **how}
        fit(model, data, self.settings, epochs, teacher=teacher, **told)

    def _score(self, name: str, data: Data, model: nn.Module) -> tuple[float | None, int | None]:
        from compressor.pipeline.training import score

        stored = self.job.stage(f"score-{name}") if self.job is not None else None
        result = stored.data if stored is not None else score(model, data, self.settings)
        if self.job is not None and stored is None:
            self.job.store(f"score-{name}", result)
        self.scores.metric = result["metric"]
        self.events.emit(Metric(name, result["metric"], result["score"], self.scores.split, result["samples"]))
        return result["score"], result["samples"]

    def _restore(self, name: str, model: nn.Module) -> bool:
        stored = self.job.stage(name) if self.job is not None else None
        if stored is None:
            return False
        fill(model, stored.tensors)
        return True

    def _store(self, name: str, data: dict[str, Any], model: nn.Module) -> None:
        if self.job is not None:
            self.job.store(name, data, state(model))
