"""The main job, stage by stage. Each stage's result can be stored and taken up again, so a killed job goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.history import remember
from compressor.costs import REPORTED_COSTS, CostTerm, build
from compressor.errors import UnsupportedModelError, UsageError, VerificationError
from compressor.graph import Graph, capture
from compressor.graph.inputs.input_axes import arguments, input_tensors
from compressor.graph.patterns import require_matches
from compressor.graph.programs import opened
from compressor.nn.copying import deep_copy, same_tensors
from compressor.nn.modules import build_lazy, require_whole_tensors
from compressor.nn.quantization import observe_anew_
from compressor.nn.tensors import example_of, fill, state, to_device
from compressor.pipeline.console import Console
from compressor.pipeline.settings import Scores, Settings
from compressor.search import METHODS
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint, RoundTo, hard_sizes, readable
from compressor.search.constraints.greedy import shrink
from compressor.search.constraints.projector import Projector
from compressor.search.constraints.wanted import Wanted, wanted
from compressor.search.result import SearchResult
from compressor.trim import Check, TrimResult, trim_verified
from compressor.trim.sound import require_sound
from exporters.example import Example

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.latency.refinement import Held
    from compressor.latency.target import LatencySession
    from compressor.storage.job import Job


class Pipeline:
    """One compression. Call the stages in order: ``trace``, ``train``, ``assess``, ``search``, ``trim``, ``finetune``.

    What is asked for and cannot be had is found by ``trace``, before anything is trained.

    Attributes:
        model: the original; trained in place by ``train``, otherwise never changed.
        compressed: the trimmed model, from ``trim`` on.
        terms: cost terms by name.
        checks: every verification made, the last one being that of ``compressed``.
    """

    graph: Graph
    compressed: nn.Module
    architecture: Architecture
    check: Check
    decision: SearchResult
    wanted: Wanted

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        settings: Settings,
        *,
        example_kwargs: dict[str, Any] | None = None,
        data: Data | None = None,
        job: Job | None = None,
        console: Console | None = None,
    ) -> None:
        model = opened(model)
        require_whole_tensors(model)
        build_lazy(model, *arguments(example_inputs, example_kwargs))
        # Its tensors are the user's, its modules are not: what other threads do with the model they were given is not
        # disturbed by what a trace or a search puts on modules for a while.
        self.model, self.settings, self.data, self.job = same_tensors(model), settings, data, job
        self.console = console or Console(quiet=True)
        self.device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self.example_inputs = to_device(example_inputs, self.device)
        self.example_kwargs = to_device(example_kwargs or {}, self.device)
        self.scores = Scores()
        self.terms: dict[str, CostTerm] = {}
        self.constraints: list[Constraint] = []
        self.refused: list[str] = []
        self.on_device: LatencySession | None = None
        self.held: Held | None = None
        self._searched = self.model

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
            self.finetune()
        finally:
            if self.on_device is not None:
                self.on_device.close()

    # ---- stages

    def trace(self) -> None:
        """Capture, costs, budgets. Raises before any search if a budget cannot be met."""
        settings = self.settings
        require_matches(
            self.model, include=settings.include, exclude=settings.exclude, keep_outputs=settings.keep_outputs
        )
        if self.data is not None:
            from compressor.data.batches import require_call

            require_call(self.model, self.data.example_inputs)
        traces = METHODS.get(settings.search).traces(settings.options)
        if "resolution" in traces:
            self._require_one_size()
        with self.console.stage("trace"):
            self.graph = capture(
                self.model,
                self.example_inputs,
                example_kwargs=self.example_kwargs,
                include=settings.include,
                exclude=settings.exclude,
                keep_outputs=settings.keep_outputs,
                kernels="kernel" in traces,
                resolution="resolution" in traces,
                batch_axis=settings.batch_axis,
            )
            if self.graph.inputs is not None and not self.graph.inputs.batched:
                self.console.info("  no batch axis: costs are those of the inputs as they are")
            require_sound(self.model, self.graph, arguments(self.example_inputs, self.example_kwargs))
            names = dict.fromkeys([*REPORTED_COSTS, *(b.cost for b in settings.budgets)])
            self.terms = {name: build(name, self.graph) for name in names if name != "latency"}
        self.wanted = wanted(self.model, self.graph, settings.keep, settings.choose)
        if "latency" in names:
            self._measure_target()
        with self.console.stage("budgets"):
            self.constraints = [
                Constraint(self.terms[b.cost], b.limit(self.terms[b.cost].original)) for b in settings.budgets
            ]
            if not self.nothing_to_do and not self.graph.groups and not self._projector().removable.any():
                blocks = (
                    "whole blocks may not go as depth is off" if self.graph.blocks else "no block can go as a whole"
                )
                raise UnsupportedModelError(
                    f"Nothing in {self.graph.model_class} can be removed: every channel is held fixed ('compress "
                    f"inspect' says by what), and {blocks}. Free modules with --include/--exclude, or change the model."
                )
            self._projector().check_reachable()
        if self.nothing_to_do:
            self.console.warn(
                "Nothing to do: every budget is at or above what the model already costs "
                f"({', '.join(self.summary(c) for c in self.constraints)})."
            )
        self._require_trainable()

    def train(self) -> None:
        """Train the original first, if asked to."""
        if not self.settings.train_epochs or self.data is None:
            return
        with self.console.stage("train"):
            if not self._restore("train", self.model):
                self._fit("train", self.model, self.settings.train_epochs)
                self._store("train", {}, self.model)

    def assess(self) -> None:
        """How good the original is."""
        if self.data is not None:
            with self.console.stage("evaluate"):
                self.scores.split = "test" if self.data.test is not None else "val"
                self.scores.before, self.scores.samples = self._score("before", self.data, self.model)

    def search(self) -> None:
        """Decide what is kept."""
        from compressor.train.modes import deterministic

        with self.console.stage("search"), deterministic(self.device):
            stored = self.job.stage("search") if self.job is not None else None
            trains = METHODS.get(self.settings.search).trains and not self.nothing_to_do
            # The original must stay what it was: it is the teacher, and what the result is compared with.
            self._searched = deep_copy(self.model) if trains else self.model
            if stored is not None:
                self.decision = SearchResult.from_tensors(stored.tensors, stored.data["history"])
                if trains:
                    fill(self._searched, {k[2:]: t for k, t in stored.tensors.items() if k.startswith("m.")})
                return
            if self.nothing_to_do:
                units = self.graph.all_units()
                self.decision = SearchResult(units, torch.ones(self.graph.n_units, dtype=torch.float64), [])
            else:
                from compressor.pipeline.training import search_loss

                self.decision = METHODS.get(self.settings.search)().run(
                    SearchContext(
                        model=self._searched,
                        graph=self.graph,
                        constraints=self.constraints,
                        data=self.data,
                        round_to=self._round_to(),
                        seed=self.settings.seed,
                        loss_fn=search_loss(self.data, self.settings),
                        teacher=self.model if trains and self.settings.distill else None,
                        distill=self.settings.distill,
                        checkpoint=self.job.checkpoint("search") if self.job is not None else None,
                        progress=self.console.progress("search"),
                        options=dict(self.settings.options),
                        example=self.example,
                        wanted=self.wanted,
                        warn=self.console.warn,
                    )
                )
            if self.job is not None:
                tensors = self.decision.tensors(self.graph)
                if trains:
                    tensors |= {f"m.{name}": t for name, t in state(self._searched).items()}
                self.job.store("search", {"history": self.decision.history}, tensors)

    def trim(self) -> None:
        """Trim and verify; decide again where trimming was not exact; recalibrate BatchNorm; evaluate."""
        with self.console.stage("trim and verify"):
            self._use(self._trim_exactly())
        if self.on_device is not None and not self.nothing_to_do:
            with self.console.stage("check on the device"):
                self._hold_on_device(self.on_device)
        if self.data is None:
            return
        with self.console.stage("evaluate"):
            if not self.nothing_to_do:
                from compressor.train import recalibrate_batchnorm

                recalibrate_batchnorm(self.compressed, self.data.train, seed=self.settings.seed)
            self.scores.after_search, _ = self._score("after-search", self.data, self.compressed)

    def finetune(self) -> None:
        """Train what is left, with the original as teacher if distillation is asked for."""
        if not self.settings.finetune_epochs or self.data is None or self.nothing_to_do:
            return
        with self.console.stage("finetune"):
            if not self._restore("finetune", self.compressed):
                self._fit(
                    "finetune", self.compressed, self.settings.finetune_epochs, teacher=self.model, lr=self.settings.lr
                )
                self._store("finetune", {}, self.compressed)
        with self.console.stage("evaluate"):
            self.scores.after_finetune, _ = self._score("after-finetune", self.data, self.compressed)

    # ---- what the stages found

    @property
    def nothing_to_do(self) -> bool:
        """Whether the model is within every budget already."""
        return not self.wanted.chosen and all(c.limit >= c.term.original for c in self.constraints)

    @property
    def trained_epochs(self) -> int:
        """Epochs that the compressed network was trained for, in the search and after it."""
        if self.data is None or self.nothing_to_do:
            return 0
        searched = METHODS.get(self.settings.search).trains
        return self.settings.finetune_epochs + (int(self.settings.options.get("epochs", 0)) if searched else 0)

    def reached(self, term: CostTerm) -> float:
        """A cost of the compressed model."""
        with torch.no_grad():
            return float(term(hard_sizes(self.graph, self.decision.units, self.decision.gates)))

    def summary(self, constraint: Constraint) -> str:
        """``flops 41.2 MMACs of at most 50 MMACs``."""
        term = constraint.term
        return f"{term.name} {readable(term.original, term.unit)} of at most {readable(constraint.limit, term.unit)}"

    # ---- inner workings

    def _require_trainable(self) -> None:
        from compressor.nn.generated import computed

        settings = self.settings
        searched = settings.finetune_epochs or METHODS.get(settings.search).trains
        trains = settings.train_epochs or (searched and not self.nothing_to_do)
        if self.data is None or not trains or computed(self.model) is not None:
            return
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise UsageError(
                f"All parameters of {self.graph.model_class} are frozen, so there is nothing to train; call "
                "requires_grad_(True) on what should be, or search with oneshot and finetune for 0 epochs."
            )

    def _require_one_size(self) -> None:
        """A network with a lowered resolution runs at one size alone; find out before the search that it will not."""
        test = self.data.test if self.data is not None else None
        inputs = None if test is None else next(iter(test.batches(1)), (None,))[0]
        firsts = [input_tensors((each,), {})[:1] for each in (inputs, self.example_inputs)]
        if not all(firsts):
            return
        sizes, trained = ("x".join(map(str, x.shape[1:])) for (x,) in firsts)
        if sizes != trained:
            raise UsageError(
                f"The network is tested on inputs of {sizes} and trained on {trained}, but with a learned resolution "
                "it runs at one size; pass --learn width,depth,kernel, or data of one size."
            )

    def _projector(self, whole: set[str] | None = None, round_to: RoundTo = None) -> Projector:
        options = self.settings.options
        depth = bool(options.get("depth", True)) and "depth" in (options.get("learn") or ("depth",))
        grid = self._round_to() if round_to is None else round_to
        return Projector(self.graph, self.constraints, round_to=grid, whole=whole, depth=depth, wanted=self.wanted)

    def _round_to(self) -> RoundTo:
        """The user's multiple; with a latency budget and none given, the multiples that the target likes."""
        if self.on_device is None or self.settings.round_to is not None:
            return self.settings.round_to
        return self.on_device.multiples()

    def _use(self, result: TrimResult) -> None:
        self.compressed, self.architecture, self.check = result.model, result.architecture, result.check
        observe_anew_(self.compressed)
        remember(self.compressed, self.architecture.to_json(), self.model)

    def _measure_target(self) -> None:
        """Profile and calibrate; the latency term comes from it."""
        from compressor.latency.target import LatencySession

        assert self.settings.target is not None, "settings with a latency budget have a target"
        stored = self.job.stage("target") if self.job is not None else None
        with self.console.stage("measure the target"):
            device = LatencySession(
                # What is timed is compared with the network it was made from, which may be trained yet.
                deep_copy(self.model) if self.settings.train_epochs else self.model,
                self.graph,
                self.example,
                self.settings.target,
                known=stored.data if stored is not None else None,
                progress=self._told(),
            )
        if self.job is not None and stored is None:
            self.job.store("target", device.to_json())
        self.on_device = device
        self.terms["latency"] = device.term
        for line in device.prediction.warnings:
            self.console.warn(line)
        self.console.info(device.prediction.summary)

    def _told(self) -> Callable[[str, int, int], None]:
        """Progress of measuring, a line per tenth."""
        shown: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            tenth = 10 * done // max(total, 1)
            if tenth > shown.get(what, 0):
                shown[what] = tenth
                self.console.info(f"  {what}: {done} of {total}")

        return tell

    def _hold_on_device(self, device: LatencySession) -> None:
        """Time the exported network; decide again until the latency budget holds there."""
        from compressor.latency.enforce import Enforcer, finer

        def projector(grid: RoundTo) -> Projector:
            return self._projector(set(self.refused), grid)

        def trim(network: SearchResult) -> tuple[SearchResult, nn.Module]:
            self.decision = network
            self._use(self._trim_exactly())
            return self.decision, self.compressed

        budget = next(b for b in self.settings.budgets if b.cost == "latency")
        diary = self.job.diary("device") if self.job is not None else None
        grids = finer(self._round_to())
        enforcer = Enforcer(device, budget, self.constraints, projector, trim, grids, diary)
        self.held, network = enforcer.run(self.decision, self.console.warn)
        if self.decision is not network:
            trim(network)

    def _trim_exactly(self) -> TrimResult:
        """Trim; if groups turn out not to be exact, keep them whole and decide again under the same budgets."""
        whole: set[str] = set()
        for _ in range(3):
            result = trim_verified(
                self._searched,
                self.graph,
                self.decision.units,
                self.example_inputs,
                self.example_kwargs,
                seed=self.settings.seed,
                gates=self.decision.gates,
            )
            result.require_exact()
            if not result.refused:
                return result
            whole |= set(result.refused)
            self.refused = sorted(whole)
            self.console.warn(
                f"Removing (channels of) {', '.join(result.refused[:4])}"
                f"{' and others' if len(result.refused) > 4 else ''} was not exact "
                f"({result.reason}); they stay whole."
            )
            projector = self._projector(whole)
            projector.check_reachable()
            self.decision = shrink(projector, self.decision)
        raise VerificationError(
            f"No exact trim was found after three attempts; exclude {', '.join(sorted(whole)[:6])} with --exclude."
        )

    def _fit(
        self, name: str, model: nn.Module, epochs: int, *, teacher: nn.Module | None = None, lr: float | None = None
    ) -> None:
        from compressor.pipeline.training import fit

        fit(
            model,
            self.data,  # type: ignore[arg-type]
            self.settings,
            epochs,
            teacher=teacher,
            lr=lr,
            checkpoint=self.job.checkpoint(name) if self.job is not None else None,
            progress=self.console.progress(name),
        )

    def _score(self, name: str, data: Data, model: nn.Module) -> tuple[float | None, int | None]:
        from compressor.pipeline.training import score

        stored = self.job.stage(f"score-{name}") if self.job is not None else None
        result = stored.data if stored is not None else score(model, data, self.settings)
        if self.job is not None and stored is None:
            self.job.store(f"score-{name}", result)
        self.scores.metric = result["metric"]
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
