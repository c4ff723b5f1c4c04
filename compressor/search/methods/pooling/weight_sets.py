"""M copies of a network's weights, and the network of every configuration over each of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from compressor.architecture.edits import Edit, Work
from compressor.errors import UsageError
from compressor.graph.groups import Alternative
from compressor.nn.copying import deep_copy, same_tensors
from compressor.search.constraints.constraint import readable
from compressor.search.methods.pooling.shelf import Shelf
from compressor.storage.reading import free_memory as on_this_machine
from compressor.train.frozen import keeps_statistics
from compressor.train.modes import model_device

#: Networks that are kept: modules take memory, too, and a network is made in milliseconds.
_KEPT = 256


class WeightSets:
    """Weight set 0 is ``model`` itself; the others begin as copies of it.

    A network of a configuration has modules of its own over the very tensors of its weight set, so that a step on one
    is a step on the set. Normalisations take the statistics of the batch: those of one configuration are none for
    another. What the user froze stays.

    Args:
        alternatives: the configurations, as alternatives of a choice.
        sets: M.
        free: bytes that there are where the model is; None if that is not known.
        offload: whether sets that are not in use lie on the CPU.

    Raises:
        UsageError: the weights of all sets with their gradients and momenta do not fit into memory.
    """

    def __init__(
        self,
        model: nn.Module,
        alternatives: Sequence[Alternative],
        sets: int,
        *,
        free: float | None,
        offload: bool = False,
    ) -> None:
        self.model, self.alternatives = model, list(alternatives)
        elsewhere = offload and model_device(model).type != "cpu"
        _require_room(model, min(sets, 2) if elsewhere else sets, free)
        self.sets = [model, *(deep_copy(model) for _ in range(sets - 1))]
        self.shelf = Shelf(self.sets, model_device(model)) if offload else None
        self._still = [module in keeps_statistics(model) for module in model.modules()]
        self._networks: OrderedDict[tuple[int, int], nn.Module] = OrderedDict()

    def parameters(self) -> list[nn.Parameter]:
        """Those of all sets but the first, which are the model's."""
        return [p for each in self.sets[1:] for p in each.parameters() if p.requires_grad]

    def network(self, configuration: int, weights: int) -> nn.Module:
        """The network of a configuration over a weight set, each module in the mode of ``model``'s."""
        if self.shelf is not None:
            self.shelf.take(weights)
        key = configuration, weights
        if key in self._networks:
            self._networks.move_to_end(key)
        else:
            self._networks[key] = self._made(configuration, weights)
            while len(self._networks) > _KEPT:
                self._networks.popitem(last=False)
        network = self._networks[key]
        for mine, module in zip(network.modules(), self.model.modules(), strict=True):
            mine.training = module.training
        return network

    def _made(self, configuration: int, weights: int) -> nn.Module:
        network = same_tensors(self.sets[weights])
        for module, still in zip(network.modules(), self._still, strict=True):
            if isinstance(module, _NormBase) and module.track_running_stats and not still:
                module.running_mean = module.running_var = module.num_batches_tracked = None
                module.track_running_stats = False
        apply_all_(network, self.alternatives[configuration].edits)
        return network

    def rewritten(self, configuration: int, weights: int) -> nn.Module:
        """An ordinary network of a configuration with copies of a set's weights."""
        if self.shelf is not None:
            self.shelf.take(weights)
        network = deep_copy(self.sets[weights])
        apply_all_(network, self.alternatives[configuration].edits)
        return network


def apply_all_(model: nn.Module, edits: Sequence[Edit]) -> None:
    """One edit after the other, each checked. Raises ``UsageError`` for one that does not fit."""
    for edit in edits:
        work = Work(model)
        edit.check(work)
        edit.apply_(work)


def bytes_of_sets(model: nn.Module, sets: int) -> int:
    """What all weight sets take while they are trained: weights and momenta of each, gradients of one at a time."""
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    return sets * (held + trained) + trained


def memory_needed(model: nn.Module, sets: int, free: float | None, *, offload: bool) -> str:
    """What all weight sets will take, in one line."""
    whole = readable(bytes_of_sets(model, sets), "bytes")
    where = model_device(model)
    line = f"{sets} weight set{'s' * (sets > 1)} with gradients and momenta: {whole}"
    if offload and where.type != "cpu" and sets > 2:
        there = readable(bytes_of_sets(model, 2), "bytes")
        line += f", of which {there} at a time on {where}"
    return line + (f"; {readable(free, 'bytes')} are free there." if free is not None else ".")


def _require_room(model: nn.Module, sets: int, free: float | None) -> None:
    wanted = bytes_of_sets(model, sets)
    if free is not None and wanted > free:
        each = bytes_of_sets(model, 2) - bytes_of_sets(model, 1)
        fits = int((free - (wanted - sets * each)) // each)
        raise UsageError(
            f"{sets} weight sets take {wanted / 2**30:.1f} GiB with their momenta, and {free / 2**30:.1f} GiB are "
            f"free; at most {max(fits, 0)} fit (--pooling.mixtures). On a GPU, those that are not in use may lie in "
            "the CPU's memory (--pooling.offload true)."
        )


def free_memory(device: torch.device) -> float | None:
    """Bytes that are free where the weights are; None if that is not known."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else on_this_machine()
