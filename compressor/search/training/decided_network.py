"""The network that a search decided on, trimmed while the search still has steps left, to be trained in their stead.

It is an ordinary small network: its steps cost what they will cost ever after, in time and in memory, and so do those
of its optimizer. What the optimizer remembers is sliced as the weights are, and these go back to where they were at the
end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data.base import Split, first_batch
from compressor.errors import CompressorError
from compressor.graph.graph import Graph
from compressor.nn.inference import Inference
from compressor.search.result import SearchResult
from compressor.train.layout import copied_to_device
from compressor.train.modes import mode, model_device
from compressor.train.rng import isolated_rng
from compressor.train.splits import call_model
from compressor.trim.apply import trim
from compressor.trim.plan import plan

logger = logging.getLogger(__name__)

# What a trimmed model may raise that turns out not to be exact.
FAILURES = (CompressorError, RuntimeError, AttributeError, IndexError, KeyError, TypeError, ValueError)


class Trimmed:
    """The trimmed network of one decision. ``model`` is trained by the caller; ``full`` stays as it is until then.

    Raises:
        CompressorError: the network cannot be trimmed.
    """

    def __init__(self, full: nn.Module, graph: Graph, decision: SearchResult) -> None:
        self.full = full
        self.architecture = plan(full, graph, decision.units, decision.gates_or_all(graph))
        self.model = trim(full, self.architecture)

    @classmethod
    def of(cls, full: nn.Module, graph: Graph, decision: SearchResult, split: Split) -> Trimmed | None:
        """None, with a warning, if the trimmed network does not run on the first sample of ``split``."""
        try:
            trimmed = cls(full, graph, decision)
            with isolated_rng(), mode(trimmed.model, training=False):
                inputs, _ = first_batch(split, 1, "training")
                # A copy, as it may change them.
                Inference(trimmed.model)(
                    lambda: call_model(trimmed.model, copied_to_device(inputs, model_device(full)))
                )
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            logger.warning("The network decided on cannot be trained by itself (%s); masks do the same.", reason)
            return None
        return trimmed

    def optimizer_state(self, full: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What is kept of the optimizer's memory of the full network, by parameter; see ``Trainer.optimizer_state``."""
        found: dict[str, dict[str, Any]] = {}
        for name, _ in self.model.named_parameters():
            first = self.architecture.first_name(name)
            shape = self.architecture.shapes.get(first)
            found[name] = {
                key: self.architecture.slice(first, value)
                if isinstance(value, Tensor) and list(value.shape) == shape
                else value
                for key, value in full.get(first, {}).items()
            }
        return found

    def put_back_(self) -> None:
        """Write what was trained into the full network, statistics of its normalisations included."""
        trained, full = _tensors(self.model), _tensors(self.full)
        for name, tensor in trained.items():
            first = self.architecture.first_name(name)
            if first in full:
                self.architecture.put_back_(first, full[first], tensor)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, tied ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
