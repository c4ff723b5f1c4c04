"""What code of a user cannot reach from inside a job: the data folder, the database, keys, other jobs, the network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.service.worker import sandbox as module
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.errors import SandboxError
from compressor.service.worker.loop import Worker, sandbox_of
from compressor.service.worker.sandbox import Sandbox
from compressor.service.worker.surroundings import environment
from tests.service.worker.conftest import HERE, sandbox_works
from tests.service.worker.fake_server import FakeServer

pytestmark = pytest.mark.skipif(not sandbox_works(), reason="bubblewrap does not work here")
Config = Callable[..., WorkerConfig]
REPOSITORY = str(HERE.parents[2])


def looked(server: FakeServer, config: WorkerConfig, *codes: str) -> list[str]:
    """What expressions give in a job."""
    job = server.submit("one", {"steps": [["look", code] for code in codes]})
    Worker(config, jobs=1).run()
    assert (job.state, job.error) == ("done", None)
    return [event["body"]["text"] for event in job.events]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What a server keeps on the same machine, beside code that jobs may read."""
    place = tmp_path / "shared" / "service"
    (place / "artefacts").mkdir(parents=True)
    (place / "service.sqlite").write_text("rows")
    (tmp_path / "shared" / "mine.py").write_text("WORD = 'mine'")
    return place


def test_code_sees_its_own_folder_and_no_other(
    server: FakeServer, config: Config, secrets: Path, tmp_path: Path
) -> None:
    other = tmp_path / "scratch" / "worker" / "jobs" / "another"
    told = config(hidden=(secrets,), python_path=(str(HERE), str(secrets.parent)))
    found = looked(
        server,
        told,
        f"os.path.exists({str(secrets / 'service.sqlite')!r})",
        f"os.path.exists({str(other.parents[2])!r})",
        f"sorted(os.listdir({str(secrets.parent)!r}))",
        f"os.listdir({str(secrets)!r})",
        "__import__('mine').WORD",
        "os.getcwd()",
        "sorted(os.listdir('/'))",
        f"tuple(map(os.path.exists, ['/root/.ssh', '/etc/shadow', '/home', {REPOSITORY + '/pyproject.toml'!r}]))",
        "[name for name in os.listdir('/proc') if name.isdigit()]",
    )
    assert found[:2] == ["False", "False"]
    assert eval(found[2]) == ["mine.py", "service"]  # the name of a place where nothing is
    assert found[3:6] == ["[]", "'mine'", "'/job'"]
    assert not {"home", "var", "opt", "mnt", "srv"} & set(eval(found[6]))
    assert found[7] == "(False, False, False, False)"
    assert len(eval(found[8])) == 2  # the sandbox's first process and the job's own


def test_only_its_own_folder_can_be_written(server: FakeServer, config: Config) -> None:
    places = ["/here", "/dev/here", "/usr/here", str(HERE / "here"), str(Path(module.__file__).parent / "here")]
    found = looked(
        server, config(), *[f"open({place!r}, 'w').close()" for place in [*places, "/job/here", "/tmp/here"]]
    )
    assert found == ["'OSError'"] * 5 + ["None"] * 2
    assert not Path("/tmp/here").exists()


def test_no_key_and_no_address_is_in_its_environment(
    server: FakeServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPRESSOR_KEY", "secret-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    monkeypatch.setenv("HF_TOKEN", "secret-key")
    found = looked(
        server,
        config(),
        "'secret-key' in str(dict(os.environ))",
        "[p for p in Path('/proc').glob('[0-9]*/environ') if b'secret-key' in p.read_bytes()]",
        "[p for p in Path('/proc').glob('[0-9]*/cmdline') if b'a-key-of-tests' in p.read_bytes()]",
    )
    assert found == ["False", "[]", "[]"]
    assert "secret-key" not in str(
        environment("/job", "mark", said={"COMPRESSOR_KEY": "secret-key", "A_TOKEN": "secret-key"})
    )


def test_there_is_no_network(server: FakeServer, config: Config) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass  # it is there
    connect = "__import__('socket').create_connection(({!r}, {}), timeout=5)"
    names = "[name for _, name in __import__('socket').if_nameindex()]"
    found = looked(server, config(), connect.format("127.0.0.1", port), connect.format("192.0.2.1", 80), names)
    assert found == ["'ConnectionRefusedError'", "'OSError'", "['lo']"]


def test_it_has_no_rights_and_gets_none(server: FakeServer, config: Config) -> None:
    caps = "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapBnd'))]"
    kill = "[os.kill(1, 0), os.getpid()]"
    found = looked(
        server, config(), caps, kill, "__import__('subprocess').call(['mount', '-t', 'tmpfs', 'x', '/tmp']) != 0"
    )
    assert set(eval(found[0])) == {"0" * 16}
    assert eval(found[1])[1] < 10  # ids are those of its own world
    assert found[2] in ("True", "'FileNotFoundError'")


def test_without_a_sandbox_code_is_not_run(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Sandbox:
        raise SandboxError("bwrap is not installed")

    monkeypatch.setattr("compressor.service.worker.loop.find_sandbox", none)
    with pytest.raises(SandboxError, match="--allow-code=unsandboxed"):
        sandbox_of(config(code="sandboxed"))
    assert sandbox_of(config(code="unsandboxed")) is None
    assert sandbox_of(config(code="no")) is None


@pytest.mark.parametrize("name", ["model", "data"])
def test_a_worker_without_the_option_runs_no_code(server: FakeServer, config: Config, name: str) -> None:
    told: dict[str, Any] = {"steps": [], name: "job_networks:plain"}
    job = server.submit("one", told)
    Worker(config(code="no", work="compressor.service.worker.child:main"), jobs=1).run()
    assert job.state == "failed"
    assert job.error is not None
    assert "--allow-code" in job.error["text"]
