"""Masks of choices: of the alternatives at a site one is wanted, and until it is decided each has a weight.

The weights of a choice are a softmax of its logits, or a sample of a relaxed categorical distribution (Gumbel-softmax;
Jang et al., 2017, eq. 2). They are the unit weights of the choice's group, so costs see them as probabilities; in the
model, a site's output is the sum of what its alternatives give, each times its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.architecture.edits import Work
from compressor.arrays import BoolArray, IntArray
from compressor.errors import UnsupportedModelError
from compressor.graph.graph import Graph
from compressor.nn.copying import same_tensors


class Categorical:
    """The logits of all choices of a graph, one parameter of shape (number of alternatives in all,).

    Args:
        favour: initial logit of what the network has; the others begin at 0.
        allowed: which alternatives may be drawn at all, shape (number of alternatives in all,); default all. The
            others have probability 0.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        favour: float = 0.0,
        allowed: BoolArray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.choices = graph.choices
        sizes = [len(choice) for choice in self.choices]
        self._of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64)).to(device)
        units = [torch.from_numpy(choice.units) for choice in self.choices]
        self.units = torch.cat([torch.zeros(0, dtype=torch.int64), *units]).to(device)
        start = torch.zeros(len(self.units), device=device)
        start[self._positions()] = favour
        self.logits = nn.Parameter(start)
        barred = np.zeros(len(start), dtype=np.bool_) if allowed is None else ~allowed
        self._barred = torch.from_numpy(barred).to(device) if barred.any() else None

    def probabilities(self, logits: Tensor | None = None) -> Tensor:
        """Probability of every alternative, shape (alternatives,); those of each choice sum to 1.

        Args:
            logits: in place of the parameter, such as with something added.
        """
        return self._softmax(self.logits if logits is None else logits)

    def sample(
        self,
        temperature: float,
        generator: torch.Generator | None = None,
        *,
        logits: Tensor | None = None,
        uniform: Tensor | None = None,
    ) -> Tensor:
        """A draw, soft at high temperatures and one alternative alone towards 0; shape (alternatives,).

        Args:
            uniform: what it is made of, see ``uniform``; by default a fresh one.
        """
        logits = self.logits if logits is None else logits
        uniform = (self.uniform(generator) if uniform is None else uniform).clamp(1e-9, 1 - 1e-9)
        return self._softmax((logits - (-uniform.log()).log()) / temperature)

    def uniform(self, generator: torch.Generator | None = None) -> Tensor:
        """Random numbers in [0, 1) that ``sample`` makes a draw of, shape (alternatives,)."""
        return torch.rand(self.logits.shape, generator=generator, device=self.logits.device)

    def into(self, units: Tensor, weights: Tensor) -> Tensor:
        """Unit weights of shape (n_units,) with those of alternatives in their places: for ``Sizes``."""
        return units.index_put((self.units,), weights.to(units.dtype))

    def decide(self) -> IntArray:
        """The likeliest alternative of every choice, of equal ones what the network has; shape (choices,)."""
        best = []
        for choice, part in zip(self.choices, self.split(self._open(self.logits)), strict=True):
            own = part.detach().double().cpu().numpy()
            best.append(choice.current if own[choice.current] >= own.max() else int(own.argmax()))
        return np.array(best, dtype=np.int64)

    def split(self, weights: Tensor) -> list[Tensor]:
        """Weights by choice."""
        return list(torch.split(weights, [len(choice) for choice in self.choices]))

    @property
    def current(self) -> Tensor:
        """For every alternative the place of what the network has at its site, shape (alternatives,)."""
        return torch.tensor(self._positions(), dtype=torch.int64, device=self._of.device)[self._of]

    def _positions(self) -> list[int]:
        """Where what the network has stands among all alternatives."""
        found, start = [], 0
        for choice in self.choices:
            found.append(start + choice.current)
            start += len(choice)
        return found

    def _open(self, logits: Tensor) -> Tensor:
        return logits if self._barred is None else logits.masked_fill(self._barred, -torch.inf)

    def _softmax(self, logits: Tensor) -> Tensor:
        return torch.cat([logits.new_zeros(0), *(part.softmax(0) for part in self.split(self._open(logits)))])


class Mixtures:
    """The sites of a model, each with all of its alternatives over the model's own tensors.

    Raises:
        UnsupportedModelError: a choice is not about the module that it is named after.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self._sites: list[tuple[nn.Module, list[nn.Module]]] = []
        modules = dict(model.named_modules())
        for choice in graph.choices:
            if choice.name not in modules:
                raise UnsupportedModelError(
                    f"The choice {choice.name!r} is not about a module of this model, so its alternatives cannot be "
                    "mixed."
                )
            alternatives = []
            for alternative in choice.alternatives:
                work = Work(same_tensors(model))
                for edit in alternative.edits:
                    edit.check(work)
                    edit.apply_(work)
                alternatives.append(work.modules[choice.name])
            self._sites.append((modules[choice.name], alternatives))

    @contextmanager
    def applied(self, weights: list[Tensor]) -> Iterator[None]:
        """Inside, every site gives the weighted sum of its alternatives. ``weights`` are by choice, see ``split``.

        Alternatives of weight 0 without a gradient are not run.
        """
        placed: list[dict[str, Any]] = []
        try:
            for (site, alternatives), own in zip(self._sites, weights, strict=True):
                vars(site)["forward"] = _mixed(alternatives, own)
                placed.append(vars(site))
            yield
        finally:
            for space in placed:
                space.pop("forward", None)


def _mixed(alternatives: list[nn.Module], weights: Tensor) -> Callable[..., Tensor]:
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        total: Tensor | None = None
        for module, weight in zip(alternatives, weights, strict=True):
            if not weight.requires_grad and float(weight) == 0:
                continue
            part = weight * module(*args, **kwargs)
            total = part if total is None else total + part
        assert total is not None, "of a choice one alternative has a weight at least"
        return total

    return forward
