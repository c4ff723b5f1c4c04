"""Search while a Lightning ``Trainer`` trains; needs the extra ``lightning``.

    trainer = Trainer(max_epochs=10, callbacks=[CompressionCallback(example, {"flops": "50%"})])
    trainer.fit(lit, loader)    # afterwards lit holds the small network, with its trained weights

Masks move once per step of the optimizer that trains the network, whatever is accumulated, and not with steps that a
loss scaler leaves out. They are in checkpoints, so that ``fit(ckpt_path=...)`` goes on with them. Validation during
``fit`` sees the masked network.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from compressor.errors import MissingDependencyError, UsageError
from compressor.integrations.driver import SessionDriver
from compressor.pipeline.session_plan import SessionPlan

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler
    from lightning.pytorch.strategies import DeepSpeedStrategy
except ModuleNotFoundError as error:
    if error.name not in ("lightning", "lightning.pytorch"):
        raise
    raise MissingDependencyError(
        "CompressionCallback needs Lightning; install it with pip install 'compressor[lightning]'."
    ) from error

_SUBPROCESSES = "popen"
_AS_IT_IS = (
    "give the module and no checkpoint, trainer.test(lit, loader), where Lightning would load its best one by itself; "
    "or resume from it with a fresh module"
)
_CURE = "give the Trainer max_steps= without max_epochs"


class CompressionCallback(Callback):  # type: ignore[misc]
    """Masks in a network of a ``LightningModule`` while it is fitted, and the small network afterwards.

    Args:
        example_inputs, budgets, arguments: as for ``compressor.prepare``.
        module: name of the network in the ``LightningModule``, such as ``"net"`` or ``"model.backbone"``; ``""`` is the
            ``LightningModule`` itself, whose ``training_step`` then calls ``self(x)``. Default: the one child that has
            parameters.
        total_steps: steps in which masks are learned; the rest of the training is for the weights of what was decided
            on. Default: all steps of the training.
        replace: whether the ``LightningModule`` has the small network after ``fit``, in place of the network it had.

    Attributes:
        model: the small network after ``fit``; None before.
        architecture: what was decided; applies to a fresh original.

    Raises:
        UsageError: unusable arguments; in ``fit``, what ``compressor.prepare`` refuses.
    """

    def __init__(
        self,
        example_inputs: Any,
        budgets: Mapping[str, str | float],
        *,
        module: str | None = None,
        total_steps: int | None = None,
        replace: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.module = module
        self._driver = SessionDriver(SessionPlan(example_inputs, budgets, **arguments), total_steps, in_place=replace)
        self._validation = ExitStack()

    @property
    def model(self) -> nn.Module | None:
        return self._driver.model

    @property
    def architecture(self) -> Any:
        return self._driver.architecture

    @property
    def session(self) -> Any:
        """The ``compressor.Session`` of this training, once it has begun."""
        return self._driver.session

    @property
    def state_key(self) -> str:
        return f"CompressionCallback[{self.module or ''}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let a checkpoint of what is small already be loaded into a network that is small. Lightning tells the module
        alone before it loads weights."""
        load = pl_module.on_load_checkpoint

        def shrink_and_load(checkpoint: dict[str, Any]) -> None:
            state = checkpoint.get("callbacks", {}).get(self.state_key, {})
            network = self._network(pl_module)
            self._driver.require_whole(network, state, _AS_IT_IS)
            self._driver.become_small(network, state)
            load(checkpoint)

        pl_module.on_load_checkpoint = shrink_and_load

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            raise UsageError("DeepSpeed steps on weights of its own, which masks cannot follow; use strategy='ddp'.")
        if getattr(trainer.strategy, "_start_method", _SUBPROCESSES) != _SUBPROCESSES:  # spawn, fork, notebooks
            raise UsageError(
                "Lightning brings only weights back from processes that it forks or spawns, into the network as it was "
                "there before, and the small one would be lost; use strategy='ddp', from a script."
            )
        convert = trainer.precision_plugin.convert_input  # as batches are, to the type that weights have by now
        plan = self._driver.plan
        self._driver.plan = replace(
            plan, example_inputs=convert(plan.example_inputs), example_kwargs=convert(plan.example_kwargs)
        )
        self._driver.open(self._network(pl_module), _steps(trainer, pl_module), _CURE)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        session = self._driver.active
        if session is not None and not session.model.training:
            self._driver.close()
            raise UsageError(
                f"The network ({type(session.model).__name__}) is in evaluation mode, which Lightning leaves as it is, "
                "and masks act in training mode; call its train() before fit."
            )
        if session is not None and trainer.global_step and not session.steps_done:
            self._driver.close()
            raise UsageError(
                f"The checkpoint is of step {trainer.global_step} of a training without this callback, and has no "
                "masks; load its weights into the module and call fit without ckpt_path."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Gradients are whole now, and not clipped yet."""
        session = self._driver.active
        if session is not None and _trains(optimizer, session.model):
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self._driver.add_cost(1.0 if scaler is None else scaler.get_scale())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        stepped, session, every = self._driver.step(), self._driver.active, trainer.log_every_n_steps
        if stepped and session is not None and every and session.steps_done % every == 0:  # 0: nothing is logged
            self.log_dict({f"cost/{name}": value for name, value in session.costs().items()})

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driver.active is not None:
            self._validation.enter_context(self._driver.active.masked())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._validation.close()
        self._driver.close()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._driver.finish()

    def state_dict(self) -> dict[str, Any]:
        return self._driver.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._driver.load_state_dict(state_dict)

    def _network(self, pl_module: LightningModule) -> nn.Module:
        if self.module is not None:
            try:
                named: nn.Module = pl_module.get_submodule(self.module)
                return named
            except AttributeError as error:
                raise UsageError(f"{type(pl_module).__name__} has no module {self.module!r}: {error}.") from error
        own = next(pl_module.parameters(recurse=False), None)
        children = {name: child for name, child in pl_module.named_children() if any(True for _ in child.parameters())}
        if own is None and len(children) == 1:
            only: nn.Module = next(iter(children.values()))
            return only
        found = ", ".join(map(repr, children)) or "none"
        raise UsageError(
            f"{type(pl_module).__name__} has {len(children)} modules with parameters ({found}); say which is to be "
            "compressed: module='NAME', or module='' for all of it where training_step calls self(x)."
        )


def _steps(trainer: Trainer, pl_module: LightningModule) -> float | None:
    """Steps of the optimizer in the training; None if Lightning cannot know."""
    varies = any(
        isinstance(each, GradientAccumulationScheduler) and len(each.scheduling) > 1 for each in trainer.callbacks
    )
    if varies or not pl_module.automatic_optimization:
        # max_steps counts the steps of all optimizers, and holds where epochs do not end the training before.
        known = len(trainer.optimizers) == 1 and trainer.max_epochs == -1 and trainer.max_steps > 0
        return float(trainer.max_steps) if known else None
    return float(trainer.estimated_stepping_batches)


def _trains(optimizer: Any, network: nn.Module) -> bool:
    owned = {id(parameter) for parameter in network.parameters()}
    held: list[torch.Tensor] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return any(id(parameter) in owned for parameter in held)
