"""Two processes train as one: the same weights up to rounding, the same bits on both, and after a kill as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, DataError, ProcessLostError, TrainingError
from compressor.process.ranks import current
from compressor.process.together import together
from compressor.train import Hooks, TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.train.reduction import digest
from tests.several import in_processes
from tests.train.killed import GatedSearch
from tests.train.tiny import RandomSplit, TinyData, tiny_data, tiny_model

CPU = torch.device("cpu")


class DoubleSplit(RandomSplit):
    """In float64, where what is equal up to rounding is equal to many digits."""

    def batches(self, batch_size: int, **told: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in super().batches(batch_size, **told):
            yield inputs.double(), targets


class Own(DoubleSplit):
    """A loader's own batches, of five samples each, which no process can halve."""

    own_order = True

    def batches(self, batch_size: int, **told: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return super().batches(5, **told)


class Dense(DoubleSplit):
    """A class at every position, of which most of the first samples' do not count."""

    def batches(self, batch_size: int, **told: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in super().batches(batch_size, **told):
            every = targets[:, None].repeat(1, 16)
            every[: len(every) // 2, 1:] = -100
            yield inputs, every


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).flatten(2)
        return out


class Moved(nn.Module):
    """A buffer that a forward moves, other than statistics of a batch."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += x.detach().mean()
        return x


class Rarely(nn.Module):
    """A head that only some batches run."""

    def __init__(self) -> None:
        super().__init__()
        self.often, self.rarely = nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3)).repeat(1, 4)
        out: Tensor = self.often(x)
        return out + self.rarely(x) if float(x.sum()) > 0 else out


def trained(model: nn.Module, data: Any, *, hooks: Hooks | None = None, **told: Any) -> dict[str, Any]:
    told = {"epochs": 2, "batch_size": 16, "log_every": 1, **told}
    teacher = tiny_model(seed=9).double() if told.get("distill") else None
    result = Trainer(model, data, TrainConfig(**told), hooks=hooks, teacher=teacher).run()
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "losses": [entry["loss"] for entry in result.history],
        "steps": result.steps,
    }


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def linear() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))


def double(dropout: float = 0.0) -> nn.Module:
    return tiny_model(dropout=dropout).double()


def data(kind: type[RandomSplit] = DoubleSplit, count: int = 80) -> Any:
    return TinyData(kind(count), kind(40, seed=1))


def cases() -> dict[str, dict[str, Any]]:
    """What one process gives, and two have to."""
    own = data(Own)
    found = {
        "plain": trained(double(), data()),
        "clipped, distilled": trained(double(), data(), grad_clip=0.1, distill=0.5, optimizer="adamw", lr=0.01),
        "uneven": trained(double(), data(), batch_size=7),
        "accumulated": trained(linear().double(), data(), accumulate=2),
        "accumulated, with statistics": trained(double(), data(), accumulate=2),
        "batches of a loader": trained(double(), own, accumulate=2),
        "positions that do not count": trained(seeded(Pixels).double(), data(Dense)),
    }
    model = double()
    hooks = GatedSearch(model)  # type: ignore[arg-type]
    found["masks"] = trained(model, data(), hooks=hooks, grad_clip=1.0)
    found["masks"]["state"]["logits"] = hooks.logits.detach()
    metrics = evaluate(model, data().val, batch_size=7)
    recalibrate_batchnorm(model, data().train, batch_size=15)
    found["measured"] = {
        "state": {"loss": torch.tensor(metrics.loss), "accuracy": torch.tensor(metrics.accuracy), **model.state_dict()},
        "losses": [],
        "steps": metrics.count,
    }
    return found


def unlike(rank: int) -> dict[str, Any]:
    """What is no copy of one process: noise and branches of each one's own, half precision, buffers of the first."""
    net = nn.Sequential(Moved(), double(0.3))
    found = {"dropout": trained(net, data()), "amp": trained(tiny_model(), tiny_data(), amp=True, accumulate=2)}
    found["rarely used"] = trained(seeded(Rarely).double(), data())
    return found


def refused(rank: int) -> dict[str, str]:
    found = {}
    poisoned = data()
    if rank == 1:
        poisoned.train.inputs[:, 0] = torch.nan

    class Apart(Hooks):
        def forward(self, model: nn.Module, inputs: Any) -> Any:
            with torch.no_grad():
                next(model.parameters()).add_(rank)
            return model(inputs)

    told: dict[str, tuple[Any, dict[str, Any]]] = {
        "small": (data(count=1), {}),
        "lost": (poisoned, {}),
        "apart": (data(), {"hooks": Apart()}),
    }
    for name, (given, more) in told.items():
        try:
            trained(double(), given, max_steps=2, **more)
        except (DataError, TrainingError, CompressorError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def resumed(rank: int, folder: Path) -> dict[str, str]:
    """A run that only the first process keeps a checkpoint of, and that ends in the middle."""
    told = TrainConfig(epochs=3, batch_size=16, checkpoint_seconds=0.0)
    found = {}
    for name, stops in (("alone", ()), ("stopped", (3, 7))):
        place = folder / f"{name}-{rank}.safetensors"
        for stop in (*stops, None):
            model = tiny_model()
            hooks = Stopping(stop)
            try:
                Trainer(model, tiny_data(), told, hooks=hooks, checkpoint=place).run()
            except KeyboardInterrupt:
                continue
            found[name] = digest(model.state_dict().values())
        assert place.exists() == (rank == 0)
    return found


class Stopping(Hooks):
    def __init__(self, stop: int | None) -> None:
        self._stop = stop

    def before_step(self, step: int, total_steps: int) -> None:
        if step == self._stop:
            raise KeyboardInterrupt


def everything(rank: int) -> dict[str, Any]:
    with together(device=CPU) as ranks:
        assert current() is ranks
        assert (ranks.size, ranks.rank) == (2, rank)
        found: dict[str, Any] = {"cases": cases(), "unlike": unlike(rank), "refused": refused(rank)}
        place = ranks.share(_folder() if rank == 0 else None)
        found["resumed"] = resumed(rank, place)
    assert current().size == 1
    return found


def _folder() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return in_processes(tmp_path_factory.mktemp("several"), everything)


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return cases()


def test_two_processes_are_one_up_to_rounding(two: list[Any], one: dict[str, Any]) -> None:
    for name, expected in one.items():
        for found in (each["cases"][name] for each in two):
            assert found["steps"] == expected["steps"], name
            assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5), name
            for key, tensor in expected["state"].items():
                close = torch.allclose(found["state"][key], tensor, rtol=1e-7, atol=1e-9)
                assert close, f"{name}: {key} is {found['state'][key]}, not {tensor}"


def test_both_end_with_the_same_bits(two: list[Any]) -> None:
    for kind in ("cases", "unlike"):
        for name in two[0][kind]:
            mine, other = (each[kind][name] for each in two)
            assert all(torch.equal(t, other["state"][key]) for key, t in mine["state"].items()), name
            assert mine["losses"] == other["losses"], name


def test_steps_are_those_of_the_optimizer(one: dict[str, Any]) -> None:
    assert one["plain"]["steps"] == 10
    assert one["accumulated"]["steps"] == 4  # of two batches of 16 each, in 80 samples
    assert one["batches of a loader"]["steps"] == 4


def test_two_batches_make_the_step_of_one_twice_as_large() -> None:
    told: dict[str, Any] = {"optimizer": "adamw", "grad_clip": 0.5}
    parts, whole = (
        trained(linear().double(), data(), **told, **more) for more in ({"accumulate": 2}, {"batch_size": 32})
    )
    assert parts["steps"] == whole["steps"]
    for name, tensor in whole["state"].items():
        torch.testing.assert_close(parts["state"][name], tensor)


def test_what_cannot_be_shared_or_is_lost_ends_all_alike(two: list[Any]) -> None:
    for found in (each["refused"] for each in two):
        assert "A batch of 1 sample cannot be shared by 2 processes" in found["small"]
        assert found["lost"].startswith("TrainingError: The loss became nan at step 1")
        assert "Processes 0 and 1 have come apart: weights differ" in found["apart"]


def test_the_first_keeps_the_checkpoint_for_all(two: list[Any]) -> None:
    for found in (each["resumed"] for each in two):
        assert found["alone"] == found["stopped"]
    assert two[0]["resumed"] == two[1]["resumed"]


def leaving(rank: int) -> str:
    """One fails by itself; what does the other see?"""
    try:
        with together(device=CPU) as ranks:
            if rank == 1:
                raise FloatingPointError("by itself")
            ranks.gather("here")
    except FloatingPointError:
        return "failed"
    except ProcessLostError as error:
        return str(error)
    return "nothing"


def test_who_fails_lets_the_others_know(tmp_path: Path) -> None:
    first, second = in_processes(tmp_path, leaving)
    assert second == "failed"
    assert "has ended or cannot be reached" in first
