"""Where a search method joins the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.train.splits import call_model


class Stateful(Protocol):
    """Anything with a state that survives a kill: a module, a multiplier, a running mean."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values, nested in dicts, lists and tuples."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go back to what ``state_dict`` returned."""
        ...


class Hooks:
    """A row of calls that the training loop makes; each does nothing here, and a method overrides those it needs.

    One step is, in this order: ``before_step``, ``forward``, the loss, ``penalty``, backward, ``further`` losses with a
    backward each, the optimizers, ``after_step``. Steps are counted from 0 to ``total_steps - 1``. Whatever a method
    draws must come from the global generators of PyTorch, NumPy or Python: the loop seeds, saves and restores those.

    A step may be made in parts, each with a ``forward``, a backward and ``further``, and several processes may have a
    part each. What all parts must share, such as masks, is drawn in ``before_step`` or ``after_step``, where generators
    are the same everywhere; in ``forward`` every process draws for itself.
    """

    def param_groups(self) -> Sequence[dict[str, Any]]:
        """Groups for the main optimizer. They follow its schedule (scaled to their own ``lr``, if given).

        Without a ``weight_decay`` of their own they have none. A parameter that stands here or in ``optimizers``
        is taken out of the model's groups.
        """
        return ()

    def follows(self, optimizer: Optimizer) -> None:
        """Called once with the main optimizer, before anything is trained: for those who move its parameters."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Optimizers of the method's own, stepped after the main one; their learning rates are the method's."""
        return {}

    @property
    def stateful(self) -> Mapping[str, Stateful]:
        """What checkpoints must hold. Parameters given to an optimizer and the optimizers are held anyway."""
        return {}

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        """The forward pass; override it to run the model with other weights or extra arguments.

        It must not count its calls or keep anything from one to the next: there may be one more than there are steps.
        """
        return call_model(model, inputs)

    @property
    def plain(self) -> bool:
        """Whether ``forward`` runs the model with its own weights and modules, so that it may be compiled."""
        return type(self).forward is Hooks.forward

    def penalty(self) -> Tensor | None:
        """A scalar added to the loss of a step, on the model's device; asked for once in a step."""
        return None

    def further(self) -> Sequence[Callable[[Any, Tensor], Tensor]]:
        """Further losses of the step, for networks that share the weights. Each is called with the inputs and with what
        ``forward`` gave, which has no gradient, and its backward comes before the next is called."""
        return ()

    def before_step(self, step: int, total_steps: int) -> None:
        """Called before the forward pass, for instance to sample masks."""

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after the optimizers have stepped, for instance to clamp or to move multipliers."""

    def step_values(self) -> Mapping[str, float]:
        """Numbers by name that are told with every step beside the loss: what is known anyway, nothing computed."""
        return {}

    def log(self) -> dict[str, Any]:
        """JSON values for an entry of the history. Called only when one is written."""
        return {}
