"""The network that DASH searches in: every site is the mixture of its alternatives, each with weights of its own.

What the site has is one of them and keeps its weights, so a trained network starts from what it knows. With ``warm``
the others start from these weights as well: the same taps around the same centre, spread by their dilation, and zeros
where there are none. Kernels that hold one another then differ by what their outer taps learn alone, which a choice
between them is about; drawn ones differ by their draws first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.architecture.edits import Work
from compressor.arrays import BoolArray
from compressor.graph.convolution_choices import Kernel, kernels_of
from compressor.graph.groups import Alternatives
from compressor.nn import AggConv1d, AggConv2d, Candidate


class Supernet:
    """Puts mixtures into ``model``, in place; ``restore_`` takes them out again.

    Args:
        choices: the sites.
        allowed: for each site which of its alternatives take part, shapes (len(site),).
        form: how mixtures are computed, see ``compressor.nn.AggConv2d``.
        warm: whether all alternatives start from the weights that are there.
    """

    def __init__(
        self, model: nn.Module, choices: Sequence[Alternatives], allowed: Sequence[BoolArray], form: str, *, warm: bool
    ) -> None:
        self.model, self.choices = model, list(choices)
        self._sites: list[tuple[Any, Any, list[int]]] = []
        work = Work(model)
        for choice, open_ in zip(self.choices, allowed, strict=True):
            conv: Any = work.modules[choice.name]
            own = Kernel(tuple(conv.kernel_size), tuple(conv.dilation))
            taking = [i for i, is_open in enumerate(open_.tolist()) if is_open]
            kernels = [kernels_of(choice.alternatives[i].edits, own) for i in taking]
            candidates = [Candidate(kernel.size, kernel.dilation) for kernel in kernels]
            kind = AggConv1d if isinstance(conv, nn.Conv1d) else AggConv2d
            mixture = kind.of(conv, candidates, form=form, alpha=False)
            if warm:
                _start_from(mixture, conv)
            mixture.train(conv.training)
            self._sites.append((conv, mixture, taking))
        for choice, (_, mixture, _) in zip(self.choices, self._sites, strict=True):
            work.put_module_(choice.name, mixture)

    def give(self, weights: Sequence[Tensor]) -> None:
        """Mix by these weights from now on, one tensor of shape (len(site),) for each site."""
        for (_, mixture, taking), own in zip(self._sites, weights, strict=True):
            mixture.given = own if len(taking) == len(own) else own[taking]

    def weights(self) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Copies of the weights of all alternatives, by site, alternative and parameter."""
        found: dict[str, dict[str, dict[str, Tensor]]] = {}
        for choice, (_, mixture, taking) in zip(self.choices, self._sites, strict=True):
            name = f"{choice.name}.weight" if choice.name else "weight"
            found[choice.name] = {
                choice.alternatives[i].name: {name: weight.detach().cpu().clone()}
                for i, weight in zip(taking, mixture.weights, strict=True)
            }
        return found

    def restore_(self) -> None:
        """Put the ordinary convolutions back. Harmless when called again."""
        work = Work(self.model)
        for choice, (conv, mixture, _) in zip(self.choices, self._sites, strict=True):
            standing: Any = work.modules.get(choice.name)
            if standing is mixture:
                mixture.given = None
                conv.train(mixture.training)
                work.put_module_(choice.name, conv)


@torch.no_grad()
def _start_from(mixture: Any, conv: Any) -> None:
    """The taps of ``conv`` in every alternative: its middle in smaller kernels, with zeros around it in larger ones."""
    own: Mapping[int, int] = {id(conv.weight): 1}
    for weight in mixture.weights:
        if id(weight) in own:
            continue
        margins: list[int] = []
        for axis in range(weight.dim() - 1, 1, -1):
            before = (weight.shape[axis] - 1) // 2 - (conv.weight.shape[axis] - 1) // 2
            margins += [before, weight.shape[axis] - conv.weight.shape[axis] - before]
        weight.copy_(F.pad(conv.weight, margins))
