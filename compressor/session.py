"""Masks in a model, for a training loop of one's own.

    session = compressor.prepare(model, example_inputs, {"flops": "50%"}, total_steps=len(loader) * epochs)
    for x, y in loader:
        loss = criterion(model(x), y) + session.cost_loss()
        optimizer.zero_grad(); loss.backward(); optimizer.step(); session.step()
    small = session.finish()

While the session is open, ``model(x)`` in training mode runs with the masks of the step. ``state_dict``, the optimizer
and the parameters are those of the plain model throughout: everything is computed in full and multiplied by masks, as
the optimizer holds the full weights. ``compressor.compress`` computes only what is left. In evaluation mode the model
is the full one, but inside ``with session.masked():``, which is what to validate.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.architecture import Architecture
from compressor.computed import computed
from compressor.config import Budget, Least
from compressor.copying import deep_copy
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.graph.programs import in_place
from compressor.options import Text, Whole, read, shown
from compressor.patterns import require_matches
from compressor.search import METHODS
from compressor.search.base import Constraint, RoundTo, SearchContext, SearchResult
from compressor.search.importance import FROM_DATA
from compressor.search.learning import Learner
from compressor.search.project import Projector
from compressor.search.wanted import wanted
from compressor.settings import method_options
from compressor.tensors import example_of
from compressor.train.optim import has_gradients, optimizer_parameters
from compressor.trim import Check, trim_verified

if TYPE_CHECKING:
    from compressor.graph.inputs import BatchAxis
    from compressor.latency.hold import Held
    from compressor.latency.session import LatencySession, TargetSettings


class Session:
    """See the module docstring. ``architecture`` and ``check`` are set by ``finish``."""

    architecture: Architecture
    check: Check

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        budgets: tuple[Budget, ...],
        *,
        search: str,
        options: Mapping[str, Any] | None,
        total_steps: int,
        round_to: int | None,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        example_kwargs: dict[str, Any] | None,
        batch_axis: BatchAxis = "auto",
        target: TargetSettings | None = None,
        importance: Any = None,
        keep: tuple[Least, ...] = (),
        choose: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        method = METHODS.get(read("search", Text(), search))
        if not hasattr(method, "learner"):
            raise UsageError(f"{search} does not train, so it has no session; call compressor.compress instead.")
        options = method_options(search, _in_full(options), importance=importance)
        if options.get(getattr(method, "ranked_by", "")) in FROM_DATA:
            raise UsageError("Taylor looks at data, and a loop of your own shows none beforehand; rank by magnitude.")
        read("total_steps", Whole(1), total_steps)
        self._latency = next((b for b in budgets if b.cost == "latency"), None)
        if self._latency is not None and target is None:
            raise UsageError(
                "A latency budget needs a target to measure on; pass target=, for example target='onnxruntime-cpu'."
            )
        self.model = model = in_place(model)
        if computed(model) is not None:
            raise UsageError(
                f"{type(model).__name__} has weights that another network computes, and a loop of your own would not "
                "train that; call compressor.compress instead."
            )
        self.total_steps = total_steps
        self._inputs, self._kwargs = example_inputs, example_kwargs
        require_matches(model, include=include, exclude=exclude)
        traces = method.traces(options)
        self.graph = capture(
            model,
            example_inputs,
            example_kwargs=example_kwargs,
            include=include,
            exclude=exclude,
            kernels="kernel" in traces,
            resolution="resolution" in traces,
            batch_axis=batch_axis,
        )
        self._wanted = wanted(model, self.graph, keep, choose)
        self._device = self._measured(target) if self._latency is not None and target is not None else None
        terms = {b.cost: build(b.cost, self.graph) for b in budgets if b.cost != "latency"}
        if self._device is not None:
            terms["latency"] = self._device.term
        self._constraints = [Constraint(terms[b.cost], b.limit(terms[b.cost].original)) for b in budgets]
        liked = self._device.multiples() if self._device is not None and round_to is None else None
        self._round_to: RoundTo = round_to if liked is None else liked
        context = SearchContext(
            model,
            self.graph,
            self._constraints,
            round_to=self._round_to,
            options=options,
            wanted=self._wanted,
            example=example_of(example_inputs, example_kwargs),
        )
        self._learner: Learner = method().learner(context)
        self._steps = 0
        self._learner.before_step(0, total_steps)
        self._whole: set[str] = set()
        self.held: Held | None = None
        self._open, self._masked = ExitStack(), False
        self._handles = [
            model.register_forward_pre_hook(self._enter),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def _projector(self, whole: set[str], round_to: RoundTo = None) -> Projector:
        grid = self._round_to if round_to is None else round_to
        depth = bool(self._learner.projector.removable.any())
        return Projector(self.graph, self._constraints, round_to=grid, whole=whole, depth=depth, wanted=self._wanted)

    def _measured(self, target: TargetSettings) -> LatencySession:
        from compressor.latency.session import LatencySession

        # A copy, because the loop trains the model, and the files that are timed are compared with it.
        return LatencySession(deep_copy(self.model), self.graph, example_of(self._inputs, self._kwargs), target)

    def _enter(self, module: nn.Module, args: Any) -> None:
        learns = module.training and torch.is_grad_enabled()
        if learns or self._masked:
            self._require_one_size(args)
        if learns and not self._masked:
            self._open.enter_context(self._learner.applied())

    def _require_one_size(self, args: Any) -> None:
        found, traced = args[0] if args else None, self._inputs
        if not self.graph.resolutions or not isinstance(found, Tensor) or not isinstance(traced, Tensor):
            return
        sizes = ["x".join(map(str, x.shape[2:])) for x in (found, traced)]
        if sizes[0] != sizes[1]:
            raise UsageError(
                f"The loop has inputs of {sizes[0]}, example_inputs were of {sizes[1]}, but with a learned "
                "resolution the network runs at one size; pass an example of that size, or "
                "options={'learn': 'width,depth,kernel'}."
            )

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open.close()

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Inside, the model runs with the masks of this step in any mode: once it is decided what is kept, it computes
        what ``finish`` returns."""
        before, self._masked = self._masked, True
        try:
            with self._learner.applied():
                yield
        finally:
            self._masked = before

    def parameters(self) -> list[nn.Parameter]:
        """What the masks are made of; the session has its own optimizers for it."""
        return [p for optimizer in self._learner.optimizers().values() for p in optimizer_parameters(optimizer)]

    def cost_loss(self) -> Tensor:
        """What to add to the loss: the budgets' violations, weighted by their multipliers."""
        penalty = self._learner.penalty()
        return penalty if penalty is not None else torch.zeros((), device=next(self.model.parameters()).device)

    def costs(self) -> dict[str, float]:
        """What the masks leave of each cost that has a budget, as a fraction of the original's."""
        return self._learner.log()

    def step(self) -> None:
        """Call after ``optimizer.step()``: moves the masks and the multipliers; decides when it is time."""
        for optimizer in self._learner.optimizers().values():
            if has_gradients(optimizer):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._learner.after_step(self._steps, self.total_steps)
        self._steps += 1
        self._learner.before_step(self._steps, self.total_steps)

    def state_dict(self) -> dict[str, Any]:
        """Masks, their optimizers, what else the method keeps, and the step count, for a checkpoint of one's own beside
        the model's state."""
        return {
            "masks": [parameter.detach() for parameter in self.parameters()],
            "optimizers": {name: each.state_dict() for name, each in self._learner.optimizers().items()},
            "method": {name: each.state_dict() for name, each in self._learner.stateful.items()},
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, with the model's weights as they were then.

        Raises:
            UsageError: the state is of another model, method or program version. Nothing is changed then.
        """
        mine, given = self.parameters(), state.get("masks", [])
        shapes = [tuple(p.shape) for p in mine], [tuple(p.shape) for p in given]
        if shapes[0] != shapes[1] or set(state.get("method", {})) != set(self._learner.stateful):
            raise UsageError(
                f"The state has masks of shapes {shapes[1]}, this session has {shapes[0]}; prepare the same model with "
                "the arguments that the state was made with."
            )
        with torch.no_grad():
            for parameter, value in zip(mine, given, strict=True):
                parameter.copy_(value)
        for name, optimizer in self._learner.optimizers().items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, each in self._learner.stateful.items():
            each.load_state_dict(state["method"][name])
        self._steps = int(state["steps"])
        self._learner.before_step(self._steps, self.total_steps)

    def close(self) -> None:
        """Take the masks out of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def finish(self) -> nn.Module:
        """Decide, trim and verify: the small model, with the trained weights. The masks leave the original; what those
        of ``dnarch`` did to weights is in its weights.

        Groups and blocks that turn out not to be trimmed exactly stay whole, and the decision is made again. A latency
        budget is checked on the device, and the decision made again until it holds there; ``held`` says how that went.
        """
        self.close()
        found = self._learner.decide()
        self._learner.fold_(found)
        decision, model = self._trimmed(found)
        if self._device is not None and self._latency is not None:
            network = self._enforced(self._device, self._latency, decision)
            if network is not decision:
                _, model = self._trimmed(network)
            self._device.close()
        return model

    def _enforced(self, device: LatencySession, budget: Budget, decision: SearchResult) -> SearchResult:
        from compressor.latency.enforce import Enforcer, finer

        def projector(grid: RoundTo) -> Projector:
            return self._projector(self._whole, grid)

        enforcer = Enforcer(device, budget, self._constraints, projector, self._trimmed, finer(self._round_to))
        self.held, network = enforcer.run(decision, warnings.warn)
        return network

    def _trimmed(self, decision: SearchResult) -> tuple[SearchResult, nn.Module]:
        """Trim exactly; returns the decision this had to come to, and the model."""
        from compressor.search.oneshot import shrink

        while True:
            result = trim_verified(
                self.model, self.graph, decision.units, self._inputs, self._kwargs, gates=decision.gates
            )
            result.require_exact()
            if not result.refused:
                break
            self._whole |= set(result.refused)
            projector = self._projector(self._whole)
            projector.check_reachable()
            decision = shrink(projector, decision)
        self.architecture, self.check = result.architecture, result.check
        return decision, result.model


def _in_full(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The method's options for a loop that computes the whole network. Raises ``UsageError`` for what it cannot do."""
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"options must be a mapping of names to values, not {shown(options)}.")
    options = options or {}
    for name, why in (
        ("grow", "budgets would be shares of the larger network"),
        ("compiler", "compile your own model instead"),
        ("live", "the optimizer of your loop holds the full weights"),
    ):
        if name in options:
            raise UsageError(f"{name} is for compressor.compress, not for a loop of your own: {why}.")
    return {**options, "live": False}
