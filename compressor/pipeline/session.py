"""Masks in a model, for a training loop of one's own.

    session = compressor.prepare(model, example_inputs, {"flops": "50%"}, total_steps=len(loader) * epochs)
    for x, y in loader:
        loss = criterion(model(x), y) + session.cost_loss()
        optimizer.zero_grad(); loss.backward(); optimizer.step(); session.step()
    small = session.finish()

While the session is open, ``model(x)`` in training mode runs with the masks of the step, the same in every forward of
it and in what its backward computes again. ``state_dict``, the optimizer and the parameters are those of the plain
model throughout, as are its copies: everything is computed in full and multiplied by masks, as the optimizer holds the
full weights. ``compressor.compress`` computes only what is left. In evaluation mode the model is the full one, but
inside ``with session.masked():``, which is what to validate. docs/own_loop.md says what holds in loops that are less
plain.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.history import remember
from compressor.architecture.rounds import known_whole
from compressor.errors import TrainingError, UsageError
from compressor.graph.graph import Graph
from compressor.graph.programs import in_place
from compressor.masks import Pass
from compressor.masks.gradients import MaskGradients
from compressor.masks.recompute import in_checkpoint
from compressor.nn.generated import computed
from compressor.nn.modules import require_whole_tensors
from compressor.nn.quantization import observe_anew_
from compressor.nn.tensors import not_finite
from compressor.options import Whole, read
from compressor.pipeline.bottlenecks import warn_of_bottlenecks
from compressor.pipeline.entry import Entry, entered_for_good, require_free, trains
from compressor.pipeline.problem import Problem
from compressor.pipeline.session_state import load_, state_of
from compressor.pipeline.settings import Settings
from compressor.pipeline.sharding import Sharding
from compressor.process.ranks import Ranks
from compressor.search.importance import FROM_DATA
from compressor.search.result import SearchResult
from compressor.search.training.learner import Learner
from compressor.train.optim import has_gradients, optimizer_parameters
from compressor.train.optimizer_state import carry_
from compressor.trim import Check, TrimResult
from exporters.example import Example

if TYPE_CHECKING:
    from compressor.latency.refinement import RefinementLog


class Session:
    """See the module docstring. ``architecture`` and ``check`` are set by ``finish``."""

    architecture: Architecture
    _decided: Architecture  # in this round
    check: Check

    @trains
    def __init__(
        self,
        model: nn.Module,
        example: Example,
        settings: Settings,
        *,
        total_steps: int,
        process_group: Any = None,
    ) -> None:
        if settings.measure in FROM_DATA:
            raise UsageError(
                f"{settings.measure} looks at data, and a loop of your own shows none beforehand; rank by magnitude."
            )
        self.total_steps = read("total_steps", Whole(1), total_steps)
        self._ranks = Ranks.of(model, process_group)
        if isinstance(model, nn.Module):  # else a program
            require_whole_tensors(model)
        self._measured = any(budget.cost == "latency" for budget in settings.budgets)
        self._require_one_device()
        self.model = model = in_place(model)
        require_free(model)
        if computed(model) is not None:
            raise UsageError(
                f"{type(model).__name__} has weights that another network computes, and a loop of your own would not "
                "train that; call compressor.compress instead."
            )
        self._problem = problem = Problem(model, example, settings, warnings.warn)
        problem.trace()
        if problem.is_measured:
            problem.measure(copied=True)
        problem.limit()
        self._learner: Learner = settings.method().learner(problem.context(model))
        self._learner.seed = torch.initial_seed()
        self._steps = self._forwards = self._skipped = 0
        self._learner.before_step(0, self.total_steps)
        self._lost = set(not_finite(model))
        self.held: RefinementLog | None = None
        self._said: set[str] = set()
        self._under: Pass | None = None
        self._small: nn.Module | None = None
        self._gradients = MaskGradients(self.parameters(), [p for p in model.parameters() if p.requires_grad])
        self._sharding = Sharding(model, self._learner.masking, self._gradients, self._ranks)
        self._agreed = False
        self._agree()
        self._entry = Entry(model, self._run, self._aside)

    @property
    def graph(self) -> Graph:
        """The trace of the model."""
        return self._problem.graph

    @property
    def steps_done(self) -> int:
        """How often ``step`` was called, before a checkpoint that was loaded, too."""
        return self._steps

    def _require_one_device(self) -> None:
        if self._measured and self._ranks.size > 1:
            raise UsageError(
                f"A latency budget is measured by one process, and {self._ranks.size} train together; limit flops, "
                "params or memory here, or prepare with process_group=, a group of one."
            )

    def _agree(self) -> None:
        """Let all processes that train together begin alike: with the masks of equal weights, and draws of one seed."""
        if self._agreed or self._ranks.size == 1:
            return
        self._require_one_device()
        mine = {
            "the model": (self.graph.model_class, self.graph.n_units),
            "total_steps": self.total_steps,
            "a budget": [(c.name, c.limit) for c in self._problem.constraints],
            "the order of channels by their weights": self._learner.order(),
            "seed": self._learner.seed,
        }
        self._learner.seed = self._ranks.agree(mine, [name for name in mine if name != "seed"])["seed"]
        self._agreed = True

    def _run(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A forward of the model, with or without masks."""
        if not self.model.training and self._under is None:
            return forward(*args, **kwargs)
        learns = self.model.training and (torch.is_grad_enabled() or in_checkpoint())
        if self.graph.resolutions:
            cure = "pass an example of that size, or options={'learn': 'width,depth,kernel'}"
            self._problem.require_one_size(args, "The loop has inputs of", cure)
        self._sharding.follow(running=True)
        if self._under is None:  # else some are what masks made of them
            self._learner.masking.require_unchanged()
        self._forwards += learns
        self._gradients.forward_begins()
        if self._under is not None:
            with self._under.another():
                return self._under.over(forward(*args, **kwargs), self._gradients)
        with entered_for_good(self._learner.applied()) as made:
            outputs = forward(*args, **kwargs)
            return outputs if made is None else made.over(outputs, self._gradients)

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Inside, the model runs with the masks of this step in any mode: once it is decided what is kept, it computes
        what ``finish`` returns."""
        self._require_open()
        self._sharding.follow()
        before = self._under
        if before is None:
            self._learner.masking.require_unchanged()
        with entered_for_good(self._learner.applied()) as self._under:
            try:
                yield
            finally:
                self._under = before

    @contextmanager
    def _aside(self) -> Iterator[bool]:
        """Inside, the model has no masks, even within ``masked``; says whether it had."""
        self._learner.masking.passes.clear()
        if self._under is None:
            yield False
        else:
            with self._under.aside():
                yield True

    def parameters(self) -> list[nn.Parameter]:
        """What the masks are made of; the session has its own optimizers for it, which undo a loss scale by themselves:
        leave these out of yours, and of ``GradScaler.unscale_``."""
        return [p for optimizer in self._learner.optimizers().values() for p in optimizer_parameters(optimizer)]

    def cost_loss(self) -> Tensor:
        """What to add to the loss: the budgets' violations, weighted by their multipliers."""
        penalty = self._learner.penalty()
        if penalty is None:
            return torch.zeros((), device=next(self.model.parameters()).device)
        return self._gradients.watched(penalty) if penalty.requires_grad else penalty

    def costs(self) -> dict[str, float]:
        """What the masks leave of each cost that has a budget, as a fraction of the original's."""
        return self._learner.log()

    def zero_grad(self) -> None:
        """Forget the gradients of masks, where a loop throws away those of the weights without a step."""
        self._gradients.drop()

    @trains
    def step(self) -> None:
        """Call after ``optimizer.step()``, once for all forwards and backwards of it: moves the masks and the
        multipliers; decides when it is time. Processes that train together come here together.

        A step in which gradients are not finite, or that a ``GradScaler`` left out, counts but moves nothing.

        Raises:
            UsageError: the session is closed, or the model had no forward in training mode since the last step.
        """
        self._require_open()
        if not self._forwards:
            raise UsageError(
                "session.step() found no forward of the model in training mode since the last step. Call it once after "
                "each optimizer.step(), and run the prepared model itself, model(x), not its parts or a copy."
            )
        self._agree()
        learner, over = self._learner, self._steps >= self.total_steps
        if over:
            self._say_once(f"All {self.total_steps} steps of total_steps are done: masks do not move any more.")
        elif learner.learns:
            self._move()
        else:
            learner.after_step(self._steps, self.total_steps)
        self._gradients.end_step()
        self._steps, self._forwards = self._steps + 1, 0
        learner.before_step(self._steps, self.total_steps)
        if self._steps >= self.total_steps:
            self._sharding.share_buffers()

    def _move(self) -> None:
        """Masks and multipliers, if their gradients are sound."""
        untaught = self._gradients.untaught()
        if untaught is not None:
            self._say_once(untaught)
        reason = self._gradients.settle(self._ranks)
        if reason is not None:
            self._skipped += 1
            self._say_once(
                f"Masks did not move in step {self._steps + 1}, as {reason}; such steps are skipped from here on. If "
                "there are many, lower the learning rate or clip gradients, and look for NaN in the data."
            )
            return
        for optimizer in self._learner.optimizers().values():
            if has_gradients(optimizer):
                optimizer.step()
        self._learner.after_step(self._steps, self.total_steps)

    def _say_once(self, message: str) -> None:
        kind = message[:20]
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(message, stacklevel=5)

    def _require_open(self) -> None:
        if not self._entry.is_open:
            raise UsageError(
                "The session is closed, its masks are out of the model; call compressor.prepare for another."
            )

    def state_dict(self) -> dict[str, Any]:
        """Masks, their optimizers, what else the method keeps, and the step count, for a checkpoint of one's own beside
        the model's state."""
        return state_of(self._learner, self.parameters(), self._steps)

    @trains
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, with the model's weights as they were then.

        Raises:
            UsageError: the state is of another model, method or program version. Nothing is changed then.
        """
        self._sharding.follow()
        self._steps = load_(self._learner, self.parameters(), state)
        self._learner.before_step(self._steps, self.total_steps)

    def close(self) -> None:
        """Take the masks out of the model. Harmless when called again."""
        if self._entry.is_open:
            self._learner.masking.passes.clear()
            self._entry.close()

    @trains
    def finish(self) -> nn.Module:
        """Decide, trim and verify: the small model, with the trained weights. The masks leave the original; what those
        of ``dnarch`` did to weights is in its weights. A sharded model stays as it is: its weights are gathered first,
        so every process calls this, and gets the same network, which is not sharded.

        Groups and blocks that turn out not to be trimmed exactly stay whole, and the decision is made again. A latency
        budget is checked on the device, and the decision made again until it holds there; ``held`` says how that went.

        Raises:
            TrainingError: weights or masks are NaN or infinite, or never had a gradient that was not.
            UsageError: the session is finished already, or inside ``masked``.
        """
        if self._small is not None:
            raise UsageError("The session is finished; its network is what the first call of finish() returned.")
        if self._under is not None:
            raise UsageError("finish() was called inside session.masked(); call it after that block.")
        self._sharding.follow()
        self._learner.require_finite()
        network = self._sharding.network()
        self._require_sound(network)
        self.close()
        found = self._learner.decide()
        if network is not self.model:
            self._learner.masking.take(network)
        self._learner.fold_(found)
        result = self._trimmed_and_held(network, found)
        self._decided, self.check, self._small = result.architecture, result.check, result.model
        remember(result.model, result.architecture.to_json(), network)
        self.architecture = known_whole(result.model, result.architecture)
        observe_anew_(result.model)
        return result.model

    def _trimmed_and_held(self, model: nn.Module, found: SearchResult) -> TrimResult:
        problem = self._problem
        decision, result = problem.trim(model, found)
        if problem.device is None:
            warn_of_bottlenecks(problem, decision)
            return result

        def trim(network: SearchResult) -> tuple[SearchResult, nn.Module]:
            settled, trimmed = problem.trim(model, network)
            return settled, trimmed.model

        self.held, network = problem.hold_on_device(problem.device, decision, trim)
        if network is not decision:
            network, result = problem.trim(model, network)
        warn_of_bottlenecks(problem, network)
        problem.close()
        return result

    @trains
    def shrink_(self) -> nn.Module:
        """After ``finish``: make the prepared model itself what ``finish`` returned, for code that holds on to it.

        Its parameters are new ones, not those of the optimizer nor of the network that ``finish`` returned. A
        sharded model is not sharded any more, and its modules are new ones.

        Raises:
            UsageError: the session is not finished, or what ``finish`` returned has been sharded since.
        """
        if self._small is None:
            raise UsageError("shrink_() makes the model what finish() returned; call that first.")
        if self._sharding.is_on:
            self._sharding.become_(self._small)
        else:
            self._decided.apply_(self.model)
        observe_anew_(self.model)
        return self.model

    @trains
    def carry_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """After ``finish``: let the loop's optimizer go on with the small network, in place.

        What it remembers of each weight (momentum, moments, counts) is sliced as the weight is; its groups keep their
        settings and places, so schedulers and scalers go on with it. What is no parameter of the model stays. That of a
        sharded model is gathered, by all processes together.

        Raises:
            UsageError: the session is not finished, the optimizer has none of the model's parameters, or remembers what
                cannot be sliced (LBFGS does). Nothing is changed then.
        """
        if self._small is None:
            raise UsageError("carry_optimizer() is for the network that finish() returns; call that first.")
        with self._sharding.whole_state(optimizer) as model:
            carry_(optimizer, model, self._small, self._decided)

    def _require_sound(self, model: nn.Module) -> None:
        lost = [name for name in not_finite(model) if name not in self._lost]
        if lost:
            raise TrainingError(
                f"{lost[0]} has become NaN or infinite in the loop, so what is left of it would be, too. Load the "
                "weights of an earlier checkpoint and call finish() again, or train again with a lower learning rate."
            )
        if self._steps and self._skipped == self._steps:
            raise TrainingError(
                f"None of {self._steps} steps had finite gradients, so the masks have learned nothing. Lower the "
                "learning rate or the loss scale, and look for NaN in the data."
            )
