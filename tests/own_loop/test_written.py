"""Buffers that a forward writes, and reads as weights: queues, codebooks, vectors of spectral normalisation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import compressor

STEPS = 6


class Queue(nn.Module):
    """Similarities with earlier keys; the newest take the place of the oldest. ``write`` is how."""

    def __init__(self, write: Callable[[Queue, Tensor], None]) -> None:
        super().__init__()
        self.encoder, self.write, self.at = nn.Linear(6, 16), write, 0
        self.register_buffer("keys", torch.randn(16, 20))

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)
        found = y @ self.keys.clone()
        if self.training:
            self.write(self, y.detach())
        return found


def _by_index(queue: Queue, y: Tensor) -> None:
    queue.keys[:, : len(y)] = y.t()


def _by_assignment(queue: Queue, y: Tensor) -> None:
    queue.keys = torch.cat([y.t(), queue.keys[:, len(y) :]], 1)


def _by_data(queue: Queue, y: Tensor) -> None:
    queue.keys.data = torch.cat([y.t(), queue.keys[:, len(y) :]], 1)


def _past_autograd(queue: Queue, y: Tensor) -> None:
    queue.keys.data[:, : len(y)].copy_(y.t())


@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("write", [_by_index, _by_assignment, _by_data, _past_autograd])
def test_what_is_written_stays(write: Callable[[Queue, Tensor], None], search: str) -> None:
    torch.manual_seed(0)
    model = Queue(write)
    buffer, before = model.keys, model.keys.clone()
    session = compressor.prepare(model, torch.randn(1, 6), {"params": "60%"}, total_steps=STEPS, search=search)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        x = torch.randn(4, 6)
        expected = model.encoder(x).detach().t()
        optimizer.zero_grad()
        (model(x).square().mean() + session.cost_loss()).backward()
        written = (model.keys[:, :4] == expected).all(1) | (model.keys[:, :4] == before[:, :4]).all(1)
        assert written.all()  # what the masks leave out is as it was
        assert not torch.equal(model.keys, before)
        assert torch.equal(model.keys[:, 4:], before[:, 4:])
        before = model.keys.clone()
        optimizer.step()
        session.step()
    assert model.keys is buffer
    x = torch.randn(3, 6)
    model.eval()
    with torch.no_grad(), session.masked():
        masked = model(x)
    small = session.finish().eval()
    assert small.keys.shape[0] < 16
    torch.testing.assert_close(small(x), masked)


KINDS = {"parametrization": parametrizations.spectral_norm, "hook": torch.nn.utils.spectral_norm}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norms_go_on(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), KINDS[kind](nn.Linear(24, 24)), nn.ReLU(), nn.Linear(24, 3))
    before = copy.deepcopy(dict(model.named_buffers()))
    session = compressor.prepare(model, torch.randn(1, 6), {"params": "50%"}, total_steps=STEPS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(torch.randn(8, 6)).square().mean() + session.cost_loss()).backward()
        optimizer.step()
        session.step()
    assert all(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    x = torch.randn(5, 6)
    model.eval()
    with torch.no_grad(), session.masked():
        masked = model(x)
    torch.testing.assert_close(session.finish().eval()(x), masked)


def test_a_buffer_of_another_shape_is_refused() -> None:
    def grown(queue: Queue, y: Tensor) -> None:
        queue.keys = torch.cat([queue.keys, y.t()], 1)

    model = Queue(grown)
    session = compressor.prepare(model, torch.randn(1, 6), {"params": "60%"}, total_steps=STEPS)
    with pytest.raises(compressor.errors.UnsupportedModelError, match="replaces a buffer"):
        model(torch.randn(4, 6))
    session.close()
