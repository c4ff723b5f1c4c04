"""Weights to verify with: the model's own, or drawn ones under which nothing is dead, saturated or zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from compressor.graph.graph import Graph
from compressor.trim.double import precise


class Weights(Mapping[str, Tensor]):
    """All parameters and buffers by any name, in another type; constant ones are random: zeros hide mistakes.

    A small network's are made once and copied at every look, as a forward may change them in place. A large one's are
    made anew: it is held once, masked or trimmed, and never whole beside that.

    Args:
        draw: 0 for the model's own; other numbers for parameters drawn at random, such that signals keep their size and
            biases keep units on the side of a threshold where they act.
    """

    def __init__(self, model: nn.Module, graph: Graph, dtype: torch.dtype, draw: int = 0) -> None:
        self.first = {name: parameter.name for parameter in graph.parameters.values() for name in parameter.names}
        self._buffers = {parameter.name for parameter in graph.parameters.values() if parameter.is_buffer}
        own = {
            parameter.name: (model.get_buffer if parameter.is_buffer else model.get_parameter)(parameter.name)
            for parameter in graph.parameters.values()
        }
        self._tensors = {name: tensor.detach() for name, tensor in own.items()}
        self._differentiated = {name for name, tensor in own.items() if graph.gradients and tensor.requires_grad}
        self._seeds = {name: seed for seed, name in enumerate(self._tensors)}
        self._dtype, self._draw = dtype, draw
        small = sum(tensor.numel() for tensor in self._tensors.values()) <= _HELD
        self._held: dict[str, Tensor] | None = {} if small else None

    def __getitem__(self, name: str) -> Tensor:
        with torch._C.DisableTorchFunction():  # whoever watches functions watches those of the forward
            name = self.first[name]
            if self._held is None:
                return self._value(name).requires_grad_(self.is_differentiated(name))
            if name not in self._held:
                self._held[name] = self._value(name)
            return self._held[name].clone().requires_grad_(self.is_differentiated(name))

    def is_differentiated(self, name: str) -> bool:
        """Whether the forward may take gradients with respect to it."""
        return self.first[name] in self._differentiated

    def _value(self, name: str) -> Tensor:
        own = self._tensors[name]
        value = precise(own, self._dtype)
        if not (value.is_floating_point() or value.is_complex()):
            return value.clone()  # a forward may change it in place
        generator = torch.Generator().manual_seed(self._seeds[name] + 1_000_003 * self._draw)
        if self._draw and name not in self._buffers:
            return self._drawn(name, value, generator)
        if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
            noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
            return value + 0.1 * noise.to(value.device)
        return value.clone() if value.data_ptr() == own.data_ptr() else value

    def _drawn(self, name: str, value: Tensor, generator: torch.Generator) -> Tensor:
        """In turn weights that average, which leave a rectifier nothing to cut, and ones of either sign."""
        noise = _noise(value, generator)
        if sum(n > 1 for n in value.shape) > 1:
            fan_in = max(1, value.numel() // value.shape[0])
            return (0.5 + noise) / fan_in if self._draw % 2 else 2.4 * (noise - 0.5) / fan_in**0.5
        return noise + (1.0 if name.endswith("bias") else 0.5)

    def __iter__(self) -> Iterator[str]:
        return iter(self.first)

    def __len__(self) -> int:
        return len(self.first)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1): a prime number of draws over and over, as large weights take long to draw."""
    few = torch.rand(_PERIOD, generator=generator, dtype=torch.float64).to(like.device, like.dtype)
    return few.repeat(-(-like.numel() // _PERIOD))[: like.numel()].reshape(like.shape)


_PERIOD = 4099
_HELD = 50_000_000  # numbers that are held in the precision asked for
