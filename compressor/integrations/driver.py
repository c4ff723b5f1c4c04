"""A session in a training that a framework runs: opened when the model is where it trains, moved with the optimizer."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.errors import UsageError
from compressor.options import Whole, read
from compressor.pipeline.session import Session
from compressor.pipeline.session_plan import SessionPlan


class SessionDriver:
    """What the integrations share.

    Args:
        plan: the arguments of ``compressor.prepare``.
        total_steps: steps of the optimizer that masks are learned in; None is all that the framework will do.
        in_place: whether ``finish`` makes the network that was trained small itself, so that whoever holds it has the
            small one.
    """

    session: Session | None = None
    """Open while masks act; afterwards it says how it went (``check``, ``held``)."""
    model: nn.Module | None = None
    """The small network, once there is one."""
    architecture: Architecture | None = None

    def __init__(self, plan: SessionPlan, total_steps: int | None = None, *, in_place: bool = True) -> None:
        self.plan, self.in_place = plan, in_place
        self.total_steps = read("total_steps", Whole(1), total_steps, optional=True)
        self._ready = False
        self._restored: dict[str, Any] | None = None
        self._closed: dict[str, Any] = {}  # what there was when it ended before its time
        self._network: nn.Module | None = None

    @property
    def active(self) -> Session | None:
        """The session whose masks act now."""
        return self.session if self.model is None else None

    def open(self, network: nn.Module, framework_steps: float | None, cure: str) -> None:
        """Put masks into ``network``, or let them go on where the state that was loaded left them. A network that was
        finished here is trained as it is.

        Args:
            framework_steps: how often the framework will step; None, or what is no number above zero, if it cannot say.
            cure: how to tell it.

        Raises:
            UsageError: nobody knows the steps, or as ``compressor.prepare``.
        """
        if self.model is not None and network is self._network:
            return
        self.close()
        steps = self.total_steps
        if steps is None:
            if framework_steps is None or not math.isfinite(framework_steps) or framework_steps < 1:
                raise UsageError(
                    f"How many steps this training takes is not known beforehand, and masks are learned towards the "
                    f"last of them; {cure}, or pass total_steps=."
                )
            steps = int(framework_steps)
        if self._restored is not None:
            steps = self._steps_of(self._restored, steps)
        self.session, self._network, self._closed = self.plan.open(network, steps), network, {}
        self.model = self.architecture = None
        if self._restored is not None:
            self.session.load_state_dict(self._restored["session"])
            self._restored = None

    def _steps_of(self, state: dict[str, Any], steps: int) -> int:
        """The steps that the masks of a checkpoint were learned towards."""
        then: int = state["total_steps"]
        if then != steps:
            warnings.warn(
                f"The checkpoint's masks are learned in {then} steps, and {steps} are asked for now; they go on as "
                f"they began, and what they leave is trained after step {then}.",
                stacklevel=4,
            )
        return then

    def add_cost(self, scale: float = 1.0) -> None:
        """Add the gradient of the cost to that of the masks: once per step of the optimizer, after all backwards of it
        and before the step.

        Args:
            scale: what the losses of these backwards were multiplied by for mixed precision.
        """
        if self.active is None:
            return
        cost = self.active.cost_loss()
        if cost.requires_grad:
            (cost * scale).backward()  # type: ignore[no-untyped-call]
        self._ready = True

    def step(self) -> bool:
        """After the optimizer's step, or after it was left out: the masks', if the cost was added since the last.
        Returns whether it was."""
        session, ready, self._ready = self.active, self._ready, False
        if session is None or not ready:
            return False
        session.step()
        return True

    def finish(self) -> nn.Module | None:
        """Decide, trim and verify: the small network; None if nothing was begun. See ``Session.finish``."""
        session = self.active
        if session is None:
            return self.model
        self.step()
        small = session.finish()
        self.architecture = session.architecture
        self.model = session.shrink_() if self.in_place else small
        return self.model

    def become_small(self, network: nn.Module, state: dict[str, Any]) -> None:
        """Make a fresh original what a training that is over left of it, before the weights of that are loaded."""
        if "architecture" in state and self.model is None:
            self.architecture = Architecture.from_json(state["architecture"])
            self.model = self._network = self.architecture.apply_(network)

    def require_whole(self, network: nn.Module | None, state: dict[str, Any], cure: str) -> None:
        """Raise ``UsageError`` where ``network`` is small by now and ``state`` is of when it was learned what to keep:
        the weights stored with it are those of the whole network."""
        if self.in_place and self.model is not None and network is self._network and "session" in state:
            raise UsageError(
                "The checkpoint was written while masks were learned and holds the whole network, and the network here "
                f"is small by now; {cure}."
            )

    def close(self) -> None:
        """Take the masks out of the network, undecided; ``state_dict`` goes on to tell what they were. Harmless when
        there are none."""
        self._ready = False
        if self.active is not None:
            self._closed = self.state_dict()
            self.active.close()
            self.session = None

    def state_dict(self) -> dict[str, Any]:
        """Masks and what moves them, or what was decided; numbers, texts and tensors only."""
        self.step()
        if self.architecture is not None:
            return {"asked": self._asked(), "architecture": self.architecture.to_json()}
        session = self.active
        if session is None:
            return self._restored or self._closed
        return {"asked": self._asked(), "session": session.state_dict(), "total_steps": session.total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, now or as soon as there is a network.

        Raises:
            UsageError: masks of another search or of other budgets.
        """
        if not state:
            return
        if state.get("asked") != self._asked():
            raise UsageError(
                f"The checkpoint has the masks of {state.get('asked')!r}, and {self._asked()!r} is asked for now; go "
                "on with what it was begun with, or begin anew."
            )
        if "session" not in state:
            return
        session = self.active
        if session is None:
            self._restored = state
        elif session.total_steps != state["total_steps"]:
            raise UsageError(
                f"The checkpoint's masks are learned in {state['total_steps']} steps, and this session has "
                f"{session.total_steps}; prepare it with total_steps={state['total_steps']}."
            )
        else:
            session.load_state_dict(state["session"])

    def _asked(self) -> str:
        settings = self.plan.settings
        return f"{settings.search} {' '.join(sorted(str(budget) for budget in settings.budgets))}"
