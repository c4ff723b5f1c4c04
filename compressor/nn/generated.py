"""Networks with weights that another network computes while training, such as the kernels of continuous convolutions.

Such a network carries, beside its modules, a module that returns these weights by name: all of them, or, called with
``{name: region}`` (``tensors.Region``), those parts of those weights. A second argument, ``{name: spacings}``, asks for
kernels that do on samples so far apart, along each axis, what they do on samples that are 1 apart; it is given where a
search lowers resolutions. The network is ordinary in everything else: what it computes with outside training are its
own parameters, into which ``settle_`` writes what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ATTRIBUTE = "computed_weights"


def computed(model: nn.Module) -> nn.Module | None:
    """The module whose forward gives weights of ``model`` by name, if it has one."""
    found = vars(model).get(ATTRIBUTE)
    return found if isinstance(found, nn.Module) else None


@torch.no_grad()
def settle_(model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the computed weights, or ``weights`` made of them, into the model's parameters."""
    source = computed(model)
    if source is not None:
        found: Mapping[str, Tensor] = source() if weights is None else weights
        for name, tensor in found.items():
            model.get_parameter(name).copy_(tensor)
