"""What is asked of Ray before there is one: resources, addresses, and errors that find their way back."""

from __future__ import annotations

import socket
import sys

import pytest

from compressor.cli import main
from compressor.errors import CompressorError, MissingDependencyError, UnreachableBudgetError, UsageError
from compressor.process.pool import Pool, pools_by, side_by_side
from compressor.process.ray_cluster import RayCluster, RaySettings, _require_listener, import_ray
from compressor.process.ray_pool import _portable
from tests.process.test_pool import died, scaled


def test_what_a_task_needs_is_added() -> None:
    base = RaySettings(cpus=2, resources={"fast": 1})
    found = base.with_needs({"GPU": 1, "CPU": 1, "jetson-1": 1, "fast": 0.5})
    assert found.demand == {"CPU": 2, "GPU": 1, "fast": 1, "jetson-1": 1}
    assert base.with_needs({}) == base


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'compressor\[ray\]'"):
        import_ray()


def test_where_nothing_listens_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(CompressorError, match="No Ray cluster can be reached at"):
            _require_listener(f"127.0.0.1:{port}")
    with pytest.raises(CompressorError, match="No Ray cluster can be reached"):
        _require_listener("127.0.0.1:99999")


@pytest.mark.parametrize(
    ("address", "host"), [("ray://head:10001", "head:6379"), ("ray://[::1]:10001", "[::1]:6379"), ("ray://h", "h:6379")]
)
def test_ray_client_is_refused_with_what_to_use(address: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--ray-address is ray://") as caught:
        RaySettings(address)
    for said in (f"{host} or auto", "ray job submit", "compress submit"):
        assert said in str(caught.value)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError, match="RAY_ADDRESS is ray://"):
        RayCluster()
    assert RaySettings("head:6379").address == "head:6379"


class TwoWordsError(UsageError):
    """Cannot be made from its one text, as unpickling would."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def test_errors_find_their_way_back() -> None:
    unreachable = UnreachableBudgetError("too low")
    assert _portable(unreachable) is unreachable
    told = _portable(TwoWordsError("a", "b"))
    assert type(told) is UsageError
    assert str(told) == "a b"
    alone = type("Unknown", (Exception,), {})("x")
    assert type(_portable(alone)) is CompressorError
    assert "Unknown('x')" in str(_portable(alone))


def test_another_pool_stands_in_for_the_usual_one() -> None:
    made = []

    def make(*arguments: object, **more: object) -> Pool[int, int]:
        made.append(arguments[2])
        return Pool(*arguments, **more)  # type: ignore[arg-type]

    found: dict[int, int] = {}
    with pools_by(make):
        side_by_side(scaled, {"times": 3}, [1, 2], 2, found.__setitem__, died=died)
    assert found == {1: 3, 2: 6}
    side_by_side(scaled, {"times": 3}, [4], 1, found.__setitem__, died=died)
    assert made == [2]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--ray-address", "host:1"], "--ray-address is for --executor ray"),
        (["--ray-resources", "CPU=2"], "--ray-resources is for --executor ray"),
        (["--ray-processes", "2"], "--ray-processes is for --executor ray"),
        (["--executor", "ray", "--ray-address", "ray://head:10001"], "head:6379"),
        (["--executor", "ray", "--ray-resources", "CPU"], "takes names and amounts"),
        (["--executor", "ray", "--ray-resources", "CPU=1,CPU=2"], "says CPU twice"),
        (["--executor", "ray", "--ray-resources", "GPU=-1"], "GPU must be"),
    ],
)
def test_options_that_say_nothing_sensible(more: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["sweep", "--model", "resnet18", "--budgets", "flops=50%"], ["--model", "resnet18"]):
        assert main([*line, *more]) == 2
        assert text in capsys.readouterr().err
