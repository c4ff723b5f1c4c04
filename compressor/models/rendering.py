"""Networks that compute their own weights, such as continuous CNNs, as the ordinary networks they stand for.

Such a network has two methods: ``render_for(example)`` returns the ordinary network for inputs of that size, or itself
if it is one already, and ``with_kernels(sizes)`` one of the same structure with any weights; what was rendered carries
``kernel_sizes``.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def rendered(model: nn.Module, example_inputs: Any) -> nn.Module:
    """The ordinary network behind ``model``, which is not changed; any other model as it is."""
    render = getattr(model, "render_for", None)
    if not callable(render) or isinstance(render, nn.Module):
        return model
    example = example_inputs[0] if isinstance(example_inputs, tuple | list) else example_inputs
    ordinary: nn.Module = render(example)
    return ordinary


def rendering(model: nn.Module) -> dict[str, Any]:
    """What ``described_rendering`` needs to build the structure of a rendered network again, as JSON values."""
    sizes = getattr(model, "kernel_sizes", None)
    return {} if sizes is None else {"kernels": sizes}


def described_rendering(model: nn.Module, description: Any) -> nn.Module:
    """A fresh model rendered as ``rendering`` described it; its weights are to be loaded next."""
    sizes = description.get("kernels")
    if sizes is None:
        return model
    ordinary: nn.Module = model.with_kernels(sizes)  # type: ignore[operator]
    return ordinary
