"""What every operator rule must do."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from compressor.graph import capture
from compressor.trim import trim_verified


class OperatorRuleContract:
    """Subclass it, set ``operator`` and ``free``, and give a network that calls the operator between two layers.

    ``free`` names the groups that can shrink with the rule; without a rule an operator fixes what it touches.
    """

    operator: ClassVar[str]
    free: ClassVar[frozenset[str]]

    def network(self) -> nn.Module:
        """A network that calls the operator."""
        raise NotImplementedError

    def example(self) -> Any:
        """Its inputs: a tensor, or a tuple of them."""
        raise NotImplementedError

    def test_it_frees_what_it_should_and_nothing_is_fixed_because_of_it(self) -> None:
        graph = capture(self.made(), self.example())
        assert self.free <= {group.name for group in graph.groups}
        assert self.operator not in {fixed.operator for fixed in graph.fixed}

    def test_whatever_goes_the_trimmed_network_is_the_masked_one(self) -> None:
        model = self.made()
        graph = capture(model, self.example())
        rng = np.random.default_rng(0)
        for share in (0.2, 0.5, 0.8):
            for _ in range(3):
                units = graph.all_units()
                for group in graph.groups:
                    gone = min(int(share * len(group)), len(group) - 1)
                    units[group.units[rng.permutation(len(group))[:gone]]] = False
                result = trim_verified(model, graph, units, self.example())
                assert result.refused == [], result.reason
                assert result.check.passed

    def made(self) -> nn.Module:
        """The network, the same at every call, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.network().eval()
