"""Masks in a model, for a training loop of one's own.

    session = compressor.prepare(model, example_inputs, {"flops": "50%"}, total_steps=len(loader) * epochs)
    for x, y in loader:
        loss = criterion(model(x), y) + session.cost_loss()
        optimizer.zero_grad(); loss.backward(); optimizer.step(); session.step()
    small = session.finish()

While the session is open, ``model(x)`` in training mode runs with freshly sampled masks. ``state_dict``, the
optimizer and the parameters are those of the plain model throughout.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.architecture import Architecture
from compressor.config import Budget
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.graph.modules import unwrapped
from compressor.patterns import require_matches
from compressor.search import METHODS
from compressor.search.base import Constraint, RoundTo, SearchResult
from compressor.search.figs import FigsConfig, FigsSession
from compressor.search.project import Projector
from compressor.trim import Check, trim_verified

if TYPE_CHECKING:
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
        options: dict[str, Any],
        total_steps: int,
        round_to: int | None,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        example_kwargs: dict[str, Any] | None,
        target: TargetSettings | None = None,
    ) -> None:
        if not METHODS.get(search).trains:
            raise UsageError(f"{search} does not train, so it has no session; call compressor.compress instead.")
        if search != "figs":
            raise UsageError(f"{search} has no session yet; use search='figs'.")
        if total_steps < 1:
            raise UsageError(f"total_steps must be at least 1, not {total_steps}.")
        self.model = model = unwrapped(model)
        self.total_steps = total_steps
        self._inputs, self._kwargs = example_inputs, example_kwargs
        require_matches(model, include=include, exclude=exclude)
        self.graph = capture(model, example_inputs, example_kwargs=example_kwargs, include=include, exclude=exclude)
        self._latency = next((b for b in budgets if b.cost == "latency"), None)
        self._device = self._measured(target) if self._latency is not None else None
        terms = {b.cost: build(b.cost, self.graph) for b in budgets if b.cost != "latency"}
        if self._device is not None:
            terms["latency"] = self._device.term
        self._constraints = [Constraint(terms[b.cost], b.limit(terms[b.cost].original)) for b in budgets]
        config = FigsConfig.from_options(options)
        liked = self._device.multiples() if self._device is not None and round_to is None else None
        self._round_to: RoundTo = round_to if liked is None else liked
        projector = self._projector(config)
        projector.check_reachable()
        self._figs = FigsSession(model, projector, config)
        self._steps = 0
        self._whole: set[str] = set()
        self.held: Held | None = None
        self._open = ExitStack()
        self._handles = [
            model.register_forward_pre_hook(self._enter),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def _projector(self, config: FigsConfig, whole: set[str] | None = None, round_to: RoundTo = None) -> Projector:
        grid = self._round_to if round_to is None else round_to
        return Projector(self.graph, self._constraints, round_to=grid, whole=whole, depth=config.depth)

    def _measured(self, target: TargetSettings | None) -> LatencySession:
        from compressor.latency.session import LatencySession

        if target is None:
            raise UsageError(
                "A latency budget needs a target to measure on; pass target=, for example target='onnxruntime-cpu'."
            )
        # A copy, because the loop trains the model, and the files that are timed are compared with it.
        return LatencySession(copy.deepcopy(self.model), self.graph, self._inputs, target)

    def _enter(self, module: nn.Module, args: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._open.enter_context(self._figs.masked())

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open.close()

    def parameters(self) -> list[nn.Parameter]:
        """The mask logits; the session has its own optimizer for them."""
        return [self._figs.logits]

    def cost_loss(self) -> Tensor:
        """What to add to the loss: the budgets' violations, weighted by their multipliers."""
        penalty = self._figs.penalty()
        return penalty if penalty is not None else self._figs.logits.new_zeros(())

    def costs(self) -> dict[str, float]:
        """Expected cost of each budget, as a fraction of the original's."""
        return self._figs.log()

    def step(self) -> None:
        """Call after ``optimizer.step()``: moves the logits and the multipliers."""
        optimizer = self._figs.optimizers()["logits"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._figs.after_step(self._steps, self.total_steps)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Logits, their optimizer, multipliers and step count, for a checkpoint of one's own."""
        return {
            "logits": self._figs.logits.detach(),
            "optimizer": self._figs.optimizers()["logits"].state_dict(),
            "multipliers": self._figs.multipliers.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        with torch.no_grad():
            self._figs.logits.copy_(state["logits"])
        self._figs.optimizers()["logits"].load_state_dict(state["optimizer"])
        self._figs.multipliers.load_state_dict(state["multipliers"])
        self._steps = int(state["steps"])

    def close(self) -> None:
        """Take the masks out of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def finish(self) -> nn.Module:
        """Decide, trim and verify: the small model, with the trained weights. The masks leave the original.

        Groups and blocks that turn out not to be trimmed exactly stay whole, and the decision is made again. A latency
        budget is checked on the device, and the decision made again until it holds there; ``held`` says how that went.
        """
        self.close()
        decision, model = self._trimmed(self._figs.decide())
        if self._device is not None and self._latency is not None:
            network = self._enforced(self._device, self._latency, decision)
            if network is not decision:
                _, model = self._trimmed(network)
            self._device.close()
        return model

    def _enforced(self, device: LatencySession, budget: Budget, decision: SearchResult) -> SearchResult:
        from compressor.latency.enforce import Enforcer, finer

        def projector(grid: RoundTo) -> Projector:
            return self._projector(self._figs.config, self._whole, grid)

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
            projector = self._projector(self._figs.config, self._whole)
            projector.check_reachable()
            decision = shrink(projector, decision)
        self.architecture, self.check = result.architecture, result.check
        return decision, result.model
