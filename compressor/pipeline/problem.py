"""What is to be solved, whoever trains: a traced network, what it costs and may cost, and the way from a decision to a
network that is exactly what was decided.

The stages of a job and a session in a loop of the user's own both stand on this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.costs import REPORTED_COSTS, CostTerm, build
from compressor.errors import UnsupportedModelError, UsageError, VerificationError
from compressor.graph import Graph, capture
from compressor.graph.choices import CHOICES, add_choices
from compressor.graph.inputs.input_axes import arguments, input_tensors
from compressor.graph.patterns import require_matches
from compressor.nn.copying import deep_copy
from compressor.pipeline.chosen import Chosen, with_choices
from compressor.pipeline.settings import Settings
from compressor.process.ranks import current
from compressor.search.base import Bounded, SearchContext
from compressor.search.constraints.constraint import Constraint, RoundTo, hard_sizes, readable
from compressor.search.constraints.greedy import shrink
from compressor.search.constraints.projector import Projector
from compressor.search.constraints.wanted import Wanted, wanted
from compressor.search.result import SearchResult
from compressor.trim import TrimResult, trim_verified
from compressor.trim.absorbed import Reader, absorbed, known_readers
from compressor.trim.sound import require_sound
from exporters.example import Example

if TYPE_CHECKING:
    from compressor.budget import Budget
    from compressor.latency.elsewhere import MeasuredElsewhere
    from compressor.latency.refinement import RefinementLog
    from compressor.latency.subnets import Made, Subnet
    from compressor.latency.target import LatencySession
    from compressor.storage.job import Diary
    from compressor.storage.shared_job import JobStages

_ATTEMPTS = 3


class Problem:
    """One network under its budgets. Call ``trace``, ``measure`` if there is a latency budget, then ``limit``.

    Args:
        model: traced and decided about; not changed.
        example: the whole call it is traced with.
        settings: what was asked for.
        warn: tells the user.

    Attributes:
        graph: the trace.
        terms: cost terms by name.
        constraints: the budgets, all of which hold in the end.
        wanted: what the user wants kept in any case.
        device: where a latency budget holds, once measured.
        refused: groups and blocks that could not be trimmed exactly, and stay whole.
        absorbs: whether layers take up the mean of channels that go, as nothing will be trained.
        absorbed: how many layers did in the last trim.
        searches: whether a method is to search, so that its own bounds hold; not where what it found is taken.
    """

    graph: Graph
    wanted: Wanted

    def __init__(self, model: nn.Module, example: Example, settings: Settings, warn: Callable[[str], None]) -> None:
        self.model, self.example, self.settings, self.warn = model, example, settings, warn
        self.terms: dict[str, CostTerm] = {}
        self.constraints: list[Constraint] = []
        self.device: LatencySession | MeasuredElsewhere | None = None
        self.refused: list[str] = []
        self.absorbs, self.absorbed = False, 0
        self.searches = True
        self._readers: tuple[nn.Module, list[Reader]] | None = None
        self._chosen: Chosen | None = None

    # ---- what is to be solved

    def trace(self, costs: tuple[str, ...] = ()) -> None:
        """Capture, and the terms of all budgets and of ``costs``.

        Raises:
            UsageError: patterns or wishes that match nothing. UnsupportedModelError: the model cannot be traced.
        """
        settings = self.settings
        require_matches(
            self.model, include=settings.include, exclude=settings.exclude, keep_outputs=settings.keep_outputs
        )
        self.graph = self._captured(self.model)
        add_choices(
            self.model,
            self.graph,
            [kind for kind in CHOICES if kind in settings.config.decides],
            settings.config.choice_options(settings.include, settings.exclude),
        )
        for remark in self.graph.remarks:
            self.warn(remark)
        require_sound(self.model, self.graph, arguments(self.example.args, dict(self.example.kwargs)))
        names = dict.fromkeys([*costs, *(budget.cost for budget in settings.budgets)])
        self.terms = {name: build(name, self.graph) for name in names if name != "latency"}
        self.wanted = wanted(self.model, self.graph, settings.keep, settings.choose)

    def _captured(self, model: nn.Module) -> Graph:
        settings, decides = self.settings, self.settings.config.decides
        return capture(
            model,
            self.example.args,
            example_kwargs=dict(self.example.kwargs),
            include=settings.include,
            exclude=settings.exclude,
            keep_outputs=settings.keep_outputs,
            kernels="kernel" in decides,
            resolution="resolution" in decides,
            squeeze="squeeze" in decides,
            batch_axis=settings.batch_axis,
        )

    @property
    def is_measured(self) -> bool:
        """Whether a budget is about latency."""
        return any(budget.cost == "latency" for budget in self.settings.budgets)

    def measure(
        self, job: JobStages | None = None, *, copied: bool, progress: Callable[[str, int, int], None] | None = None
    ) -> LatencySession | MeasuredElsewhere:
        """Profile and calibrate the target; the latency term comes from it. Of several processes the first measures.

        Args:
            copied: whether the model will be trained: what is timed is compared with the network it was made from.

        Raises:
            UsageError: the method decides on choices whose latency is not known by alternative.
        """
        from compressor.latency.elsewhere import MeasuredElsewhere
        from compressor.latency.target import LatencySession

        assert self.settings.target is not None, "settings with a latency budget have a target"
        unknown = [choice for choice in self.graph.choices if not choice.timed]
        if unknown:
            kinds = ", ".join(dict.fromkeys(choice.of for choice in unknown))
            raise UsageError(
                f"A latency budget was given, and {self.settings.search} decides on choices ({kinds}), whose latency "
                "is not known by alternative; limit flops, params or memory, or choose another method."
            )
        target, ranks = self.settings.target, current()
        stored = job.stage("target") if job is not None else None

        def measured() -> MeasuredElsewhere | None:
            self.device = LatencySession(
                deep_copy(self.model) if copied else self.model,
                self.graph,
                self.example,
                target,
                known=stored.data if stored is not None else None,
                progress=progress,
                decides=self.settings.config.decides,
                make=self._made,
            )
            if job is not None and stored is None:
                job.store("target", self.device.to_json())
            return None if ranks.size == 1 else MeasuredElsewhere.told(self.device)

        told = ranks.first(measured)
        if not ranks.is_first:
            self.device = told
        assert self.device is not None, "it was measured here or elsewhere"
        self.terms["latency"] = self.device.term
        return self.device

    def limit(self) -> None:
        """Turn budgets into constraints.

        Raises:
            UnreachableBudgetError: one is below what the model can be brought to.
            UnsupportedModelError: nothing can be decided about the model.
            UsageError: it has nothing of what the method is asked to decide on.
        """
        terms = [self.terms[budget.cost] for budget in self.settings.budgets]
        self.constraints = [
            Constraint(term, self.for_now(budget).limit(term.original))
            for budget, term in zip(self.settings.budgets, terms, strict=True)
        ]
        if not self.nothing_to_do and (self.graph.groups or self.settings.method.improves):
            self.settings.config.require(self.graph)
        projector = self.projector()
        held = all(group.index in projector.held for group in self.graph.groups)
        if not self.nothing_to_do and held and not projector.removable.any():
            raise self._nothing_to_decide()
        method = self.settings.method() if self.searches and not self.nothing_to_do else None
        if isinstance(method, Bounded):  # first, as it names what the method itself comes down to
            method.require_reachable(self.context(self.model))
        projector.check_reachable()

    def for_now(self, budget: Budget) -> Budget:
        """The budget, or all that the network costs where a later search will meet it."""
        original = self.terms[budget.cost].original
        if not self.settings.at_least_original or budget.limit(original) >= original:
            return budget
        return replace(budget, value=1.0, relative=True)

    def _nothing_to_decide(self) -> UnsupportedModelError:
        name, config = self.graph.model_class, self.settings.config
        if self.graph.groups:
            kinds = ", ".join(sorted(config.decides))
            return UnsupportedModelError(
                f"{self.settings.search} decides on {kinds}, and {name} has nothing of that kind to decide on; choose "
                "another method, or change the model."
            )
        blocks = "whole blocks may not go as depth is off" if self.graph.blocks else "no block can go as a whole"
        reasons = (fixed.reason for fixed in self.graph.fixed)
        unreached = next((f"One reason: {reason}. " for reason in reasons if " was not reached " in reason), "")
        return UnsupportedModelError(
            f"Nothing in {name} can be removed: every channel is held fixed ('compress inspect' says by what), and "
            f"{blocks}. {unreached}Free modules with --include/--exclude, or change the model."
        )

    @property
    def nothing_to_do(self) -> bool:
        """Whether the model is within every budget already, and the method looks for nothing better."""
        if self.settings.method.improves:
            return False
        return not self.wanted.chosen and all(c.limit >= c.term.original for c in self.constraints)

    def require_one_size(self, inputs: Any, of: str, cure: str) -> None:
        """A network with a lowered resolution runs at one size alone: raise ``UsageError`` for inputs of another."""
        firsts = [input_tensors((each,), {})[:1] for each in (inputs, self.example.args)]
        if not all(firsts):
            return
        sizes, traced = ("x".join(map(str, x.shape[2:])) for (x,) in firsts)
        if sizes != traced:
            raise UsageError(
                f"{of} {sizes}, and the network was traced at {traced}, but with a learned resolution it runs at one "
                f"size; {cure}."
            )

    # ---- on the way to a decision

    @property
    def grid(self) -> RoundTo:
        """The user's multiple; with a latency budget and none given, the multiples that the target likes."""
        if self.device is None or self.settings.round_to is not None:
            return self.settings.round_to
        return self.device.multiples()

    def projector(self, grid: RoundTo = None, wanted: Wanted | None = None) -> Projector:
        """Makes hard choices that are within every budget, on ``grid`` or the job's own, with what is ``wanted``, by
        default by the user."""
        return Projector(
            self.graph,
            self.constraints,
            round_to=self.grid if grid is None else grid,
            whole=set(self.refused),
            wanted=self.wanted if wanted is None else wanted,
            decides=self.settings.config.decides,
        )

    def context(self, model: nn.Module, **more: Any) -> SearchContext:
        """What a search method gets; ``model`` is the one it may train."""
        return SearchContext(
            model=model,
            graph=self.graph,
            constraints=self.constraints,
            round_to=self.grid,
            options=dict(self.settings.options),
            example=self.example,
            wanted=self.wanted,
            decides=self.settings.config.decides,
            warn=self.warn,
            **more,
        )

    def reached(self, term: CostTerm, decision: SearchResult) -> float:
        """A cost of what was decided; once that is trimmed, of the network that it is."""
        chosen = self._chosen
        if chosen is not None and chosen.architecture is not None and term.name in REPORTED_COSTS:
            return chosen.cost(term.name)
        with torch.no_grad():
            return float(term(hard_sizes(self.graph, decision.units, decision.gates)))

    def summary(self, constraint: Constraint) -> str:
        """``flops 41.2 MMACs of at most 50 MMACs``."""
        term = constraint.term
        return f"{term.name} {readable(term.original, term.unit)} of at most {readable(constraint.limit, term.unit)}"

    # ---- from a decision to a network

    def trim(self, model: nn.Module, decision: SearchResult) -> tuple[SearchResult, TrimResult]:
        """Trim ``model`` exactly; what is not exact stays whole, and it is decided again under the same budgets.

        Returns:
            The decision this had to come to, and the trimmed network with its check.

        Raises:
            VerificationError: no exact trim was found.
        """
        for _ in range(_ATTEMPTS):
            chosen = with_choices(model, self.graph, decision, self._captured)
            result = trim_verified(
                self._absorbed(chosen),
                chosen.graph,
                chosen.units,
                self.example.args,
                dict(self.example.kwargs),
                seed=self.settings.seed,
                gates=chosen.gates,
            )
            result.require_exact()
            result = chosen.whole(result)
            if not result.refused:
                self._chosen = chosen
                return decision, result
            self.refused = sorted({*self.refused, *result.refused})
            self.warn(
                f"Removing (channels of) {', '.join(result.refused[:4])}"
                f"{' and others' if len(result.refused) > 4 else ''} was not exact "
                f"({result.reason}); they stay whole."
            )
            projector = self.projector()
            projector.check_reachable()
            decision = shrink(projector, decision)
        raise VerificationError(
            f"No exact trim was found after {_ATTEMPTS} attempts; exclude {', '.join(self.refused[:6])} with --exclude."
        )

    def _absorbed(self, chosen: Chosen) -> nn.Module:
        """The network to trim: with what takes up the mean of channels that go, if that is wanted."""
        if not self.absorbs:
            return chosen.model
        model, graph = chosen.model, chosen.graph
        if self._readers is None or self._readers[0] is not model:
            self._readers = model, known_readers(model, graph, self.example, seed=self.settings.seed)
        readers = self._readers[1]
        found, self.absorbed = absorbed(model, graph, readers, chosen.units, chosen.gates, self.example)
        return found

    def _made(self, model: nn.Module, subnet: Subnet) -> Made:
        """``model`` with the alternatives of a subnet, for timing it."""
        from compressor.latency.subnets import Made

        decision = SearchResult(subnet.units, torch.zeros(self.graph.n_units), [], subnet.gates)
        chosen = with_choices(model, self.graph, decision, self._captured)
        return Made(chosen.model, chosen.graph, chosen.units, chosen.gates)

    def hold_on_device(
        self,
        device: LatencySession | MeasuredElsewhere,
        decision: SearchResult,
        trim: Callable[[SearchResult], tuple[SearchResult, nn.Module]],
        diary: Diary | None = None,
    ) -> tuple[RefinementLog, SearchResult]:
        """Time the exported network; decide again until the latency budget holds there. Of several processes the first
        does, and all take what it decided.

        Args:
            trim: trims a decision exactly; returns the one it had to come to, and the network.
            diary: keeps what was measured.
        """
        from compressor.latency.enforce import Enforcer, finer

        def held() -> tuple[RefinementLog, SearchResult, list[str]]:
            budget = self.for_now(next(b for b in self.settings.budgets if b.cost == "latency"))
            session: Any = device  # the first process has the device itself
            enforcer = Enforcer(session, budget, self.constraints, self.projector, trim, finer(self.grid), diary)
            return *enforcer.run(decision, self.warn), self.refused

        log, network, self.refused = current().first(held)
        return log, network

    def close(self) -> None:
        """Let go of the target."""
        if self.device is not None:
            self.device.close()
