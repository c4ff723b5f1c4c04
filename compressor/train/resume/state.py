"""Everything that decides how training goes on: what a checkpoint must hold for the same bits to come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import TrainingError, UsageError
from compressor.train.hooks import Hooks
from compressor.train.optim import laid_out, optimizer_parameters
from compressor.train.rng import rng_state


@dataclass
class Counters:
    """Plain numbers that go along with the weights."""

    step: int = 0
    """Steps done."""
    loss_sum: float = 0.0
    """Of the steps since the last entry of the history."""
    loss_count: int = 0
    seconds: float = 0.0
    """Spent in earlier processes and this one, up to the last checkpoint."""
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class TrainingState:
    """The living objects of a run, with their state out to a tree of tensors and JSON values and back."""

    model: nn.Module
    optimizers: dict[str, Optimizer]
    """The main one, if any, as ``"main"``; the hooks' own under ``"hooks."`` and their names."""
    scaler: torch.amp.GradScaler
    hooks: Hooks
    counters: Counters = field(default_factory=Counters)

    def extra_parameters(self) -> list[nn.Parameter]:
        """Parameters that an optimizer trains and the model does not own, such as mask logits."""
        owned = {id(parameter) for parameter in self.model.parameters()}
        found: dict[int, nn.Parameter] = {}
        for optimizer in self.optimizers.values():
            for parameter in optimizer_parameters(optimizer):
                if id(parameter) not in owned:
                    found.setdefault(id(parameter), parameter)
        return list(found.values())

    def state_dict(self) -> dict[str, Any]:
        """All of it. Tensors are the living ones, not copies: save them before the next step."""
        return {
            "model": self._model_tensors(),
            "extra": list(self.extra_parameters()),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "hooks": {name: item.state_dict() for name, item in self.hooks.stateful.items()},
            "rng": rng_state(),
            "counters": asdict(self.counters),
        }

    def load_state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        """Put everything back in place but the random generators, whose states are returned: the caller knows when.

        Raises:
            UsageError: the model or the hooks are not those that were saved. Nothing has been changed then.
        """
        targets, values = self._model_tensors(), state["model"]
        _check_fit(targets, values)
        extra: dict[str, Tensor] = {f"parameter {i} of the search": p for i, p in enumerate(self.extra_parameters())}
        _check_fit(extra, {f"parameter {i} of the search": value for i, value in enumerate(state["extra"])})
        for part, mine in (("optimizers", self.optimizers), ("hooks", self.hooks.stateful)):
            if set(state[part]) != set(mine):
                raise UsageError(
                    f"The checkpoint has the {part} {sorted(state[part])}, this run has {sorted(mine)}; "
                    "delete the checkpoint to start anew."
                )
        with torch.no_grad():
            for name, tensor in targets.items():
                tensor.copy_(values[name])
            for parameter, value in zip(extra.values(), state["extra"], strict=True):
                parameter.copy_(value)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for parameter in optimizer_parameters(optimizer):
                held = optimizer.state[parameter]
                held.update({key: laid_out(value, parameter) for key, value in held.items()})
        self.scaler.load_state_dict(state["scaler"])
        for name, item in self.hooks.stateful.items():
            item.load_state_dict(state["hooks"][name])
        self.counters = Counters(**state["counters"])
        rng: dict[str, Any] = state["rng"]
        return rng

    def check_finite(self, note: Callable[[], str] = str) -> None:
        """Refuse to go on with weights that are lost; ``note`` gives a clause about what was saved.

        Raises:
            TrainingError: a parameter has become NaN or infinite, or a buffer NaN; names it.
        """
        parameters: dict[str, Tensor] = dict(self.model.named_parameters())
        parameters.update({f"parameter {i} of the search": p for i, p in enumerate(self.extra_parameters())})
        bad = [~torch.isfinite(p.detach()).all() for p in parameters.values()]
        buffers = {name: b for name, b in self.model.named_buffers() if b.is_floating_point()}
        bad += [torch.isnan(b).any() for b in buffers.values()]
        for name, is_bad in zip((*parameters, *buffers), torch.stack(bad).tolist() if bad else (), strict=True):
            if is_bad:
                raise TrainingError(
                    f"{name} is no longer finite after step {self.counters.step}{note()}. "
                    "Lower the learning rate, or set grad_clip."
                )

    def _model_tensors(self) -> dict[str, Tensor]:
        """Parameters and all buffers, those too that a state_dict leaves out; tied ones once."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}


def _check_fit(targets: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name in {**targets, **values}:
        mine = (tuple(targets[name].shape), targets[name].dtype) if name in targets else "absent"
        saved = (tuple(values[name].shape), values[name].dtype) if name in values else "absent"
        if mine != saved:
            raise UsageError(
                f"The checkpoint does not fit the model: {name} is {saved} in the checkpoint and {mine} in the model; "
                "delete the checkpoint to start anew."
            )
