"""What a session is to do, checked before there is a model: the arguments of ``compressor.prepare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.budget import parse_budgets
from compressor.errors import UsageError
from compressor.graph.inputs.input_axes import BatchAxis
from compressor.graph.programs import require_module
from compressor.nn.tensors import example_of
from compressor.options import shown
from compressor.pipeline.arguments import Scope, gathered
from compressor.pipeline.session import Session
from compressor.pipeline.settings import Settings, measured_on, method_options
from compressor.search import get_method
from compressor.search.names import names_of

if TYPE_CHECKING:
    from compressor.latency.target import TargetSettings


@dataclass(frozen=True)
class SessionPlan:
    """The arguments of ``compressor.prepare`` but for the model and its steps, which frameworks know later.

    Raises:
        UsageError: one of them is unusable, or the method has no session.
    """

    example_inputs: Any
    budgets: Mapping[str, str | float]
    search: str = "figs"
    options: Mapping[str, Any] | None = None
    importance: str | Callable[..., Any] | None = None
    scope: Scope | None = None
    target: str | TargetSettings | None = None
    example_kwargs: dict[str, Any] | None = None
    batch_axis: BatchAxis = "auto"
    process_group: Any = None
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        require_example(self.example_inputs, self.example_kwargs)
        method = get_method(_one_with_session(self.search))
        settings = Settings(
            budgets=parse_budgets(self.budgets),
            search=method.name,
            options=method_options(method.name, method.for_own_loop(self.options), importance=self.importance),
            batch_axis=self.batch_axis,
            target=measured_on(self.target, None),
            **gathered("scope", self.scope, Scope(), {}, stacklevel=4).values(),
        )
        object.__setattr__(self, "settings", settings)

    def open(self, model: nn.Module, total_steps: int) -> Session:
        """Put masks into ``model``. Raises as ``compressor.prepare`` does."""
        require_module(model)
        example = example_of(self.example_inputs, self.example_kwargs)
        return Session(model, example, self.settings, total_steps=total_steps, process_group=self.process_group)


def _one_with_session(search: str) -> str:
    """The method that ``search`` names. Raises ``UsageError`` where it has no session."""
    names = names_of(search)
    method = get_method(names[0])
    if len(names) == 1 and method.own_loop:
        return method.name
    if len(names) > 1:
        why = "is several searches, one after the other"
    else:
        why = "trains in a loop of its own" if method.trains else "does not train"
    raise UsageError(f"{search} {why}, so it has no session; call compressor.compress instead.")


def require_example(inputs: Any, kwargs: Any) -> None:
    """Raise ``UsageError`` if there is nothing to run the model on."""
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise UsageError(f"example_kwargs must be a mapping of the forward's argument names, not {shown(kwargs)}.")
    if inputs is None and not kwargs:
        raise UsageError(
            "example_inputs is None; pass one input of the model, such as torch.randn(1, 3, 224, 224), or a tuple of "
            "its positional arguments."
        )
