"""Search in a loop of one's own that Accelerate runs; needs the extra ``accelerate``.

    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    masks = prepare(accelerator, model, example, {"flops": "50%"}, total_steps=epochs * len(loader))
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            accelerator.backward(criterion(model(inputs), targets) + masks.cost_loss())
            optimizer.step()
            masks.step()
            optimizer.zero_grad()
    small = masks.finish()

Masks are in ``accelerator.save_state`` and come back with ``accelerator.load_state``. ``masks.step()`` counts steps of
the optimizer: it does nothing in a batch whose gradients are only accumulated, and moves nothing in a step that was
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from compressor.errors import MissingDependencyError, UsageError
from compressor.integrations.driver import SessionDriver
from compressor.pipeline.session import Session
from compressor.pipeline.session_plan import SessionPlan

try:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType
except ModuleNotFoundError as error:
    if error.name != "accelerate":
        raise
    raise MissingDependencyError(
        "compressor.integrations.accelerate needs Accelerate; install it with pip install 'compressor[accelerate]'."
    ) from error


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    example_inputs: Any,
    budgets: Mapping[str, str | float],
    *,
    total_steps: int,
    replace: bool = False,
    **arguments: Any,
) -> AcceleratedSession:
    """Put masks into a model that ``accelerator.prepare`` returned, or will be given, and register them for its
    checkpoints.

    Args:
        example_inputs, budgets, arguments: as for ``compressor.prepare``.
        total_steps: steps of the optimizer in which masks are learned, not batches: of accumulated ones that is
            ``math.ceil(len(loader) / accelerator.gradient_accumulation_steps)`` an epoch, of the loader that
            ``accelerator.prepare`` returned.
        replace: whether ``finish`` makes ``model`` itself small.

    Raises:
        UsageError: as ``compressor.prepare``; or the accelerator runs DeepSpeed or Megatron.
    """
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UsageError(
            f"{accelerator.distributed_type.value} steps on weights of its own, which masks cannot follow; let the "
            "accelerator run DistributedDataParallel."
        )
    driver = SessionDriver(SessionPlan(example_inputs, budgets, **arguments), total_steps, in_place=replace)
    driver.open(accelerator.unwrap_model(model), None, "")
    session = AcceleratedSession(accelerator, driver)
    accelerator.register_for_checkpointing(session)
    return session


class AcceleratedSession:
    """What ``prepare`` returns; ``cost_loss``, ``masked``, ``costs`` and ``finish`` are those of a ``Session``."""

    def __init__(self, accelerator: Accelerator, driver: SessionDriver) -> None:
        self._accelerator, self._driver = accelerator, driver

    @property
    def session(self) -> Session:
        """The ``compressor.Session`` itself; after ``finish`` it says how that went (``check``, ``held``)."""
        found = self._driver.session
        assert found is not None
        return found

    @property
    def architecture(self) -> Any:
        """What was decided, after ``finish``; applies to a fresh original."""
        return self._driver.architecture

    def cost_loss(self) -> Tensor:
        """What to add to the loss of every batch; the accelerator weights it as it does the loss."""
        return self.session.cost_loss()

    def step(self) -> bool:
        """Call after ``optimizer.step()``, in every batch: moves the masks where the optimizer stepped. Returns whether
        it did."""
        if self._accelerator.sync_gradients:
            self.session.step()
        return bool(self._accelerator.sync_gradients)

    def masked(self) -> AbstractContextManager[None]:
        """Inside, the model runs with its masks in any mode, as for a validation."""
        return self.session.masked()

    def costs(self) -> dict[str, float]:
        """What the masks leave of each cost that has a budget, as a fraction of the original's."""
        return self.session.costs()

    def finish(self) -> nn.Module:
        """Decide, trim and verify: the small network, with the trained weights. See ``Session.finish``."""
        if self._driver.model is not None:
            return self.session.finish()  # says that it is over
        small = self._driver.finish()
        assert small is not None
        return small

    def carry_optimizer(self, optimizer: Any) -> None:
        """After ``finish``: let the loop's optimizer go on with the small network. See ``Session.carry_optimizer``."""
        self.session.carry_optimizer(getattr(optimizer, "optimizer", optimizer))

    def state_dict(self) -> dict[str, Any]:
        """For ``accelerator.save_state``."""
        return self._driver.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """For ``accelerator.load_state``. Raises ``UsageError`` for masks of other budgets, or of other steps."""
        self._driver.load_state_dict(state)
