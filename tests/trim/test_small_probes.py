"""Large inputs are verified on the user's own and on a small one of another size, which sees what sizes change."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compressor.graph import capture
from compressor.trim import trim_verified
from compressor.trim.check import TrimResult

LARGE = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Elsewhere than at the example's size it takes a mean over channels, which the trace did not see."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at, self.a, self.b = at, nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        if self.at is not None and x.shape[-1] != self.at:
            y = y - y.mean(1, keepdim=True)
        return self.b(y)  # type: ignore[no-any-return]


def halved(model: nn.Module, x: Tensor) -> TrimResult:
    graph = capture(model.eval(), x)
    units = graph.all_units()
    for group in graph.groups:
        units[group.units] = np.arange(len(group)) % 2 == 0
    return trim_verified(model, graph, units, x)


def test_another_batch_and_size_are_tried_on_a_small_input() -> None:
    check = halved(Net(None), LARGE).check
    assert check.passed
    assert check.seen == 1.0
    assert any("a batch of 2" in name and "instead of 160" in name for name in check.inputs)


def test_what_only_another_size_shows_stays_whole() -> None:
    result = halved(Net(160), LARGE)
    assert result.refused == ["a"]
    assert "instead of 160" in result.reason
    assert result.check.passed


def test_a_network_of_one_size_is_verified_at_that_size() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 8, 8), nn.Linear(16 * 400, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)).flatten(1))  # type: ignore[no-any-return]

    check = halved(Fixed(), LARGE).check
    assert check.passed
    assert "a batch of 2" in check.inputs
    assert not any("instead of" in name for name in check.inputs)
