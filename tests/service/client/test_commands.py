"""compress submit, status, watch, fetch, cancel and retry against a server that runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from compressor.cli import main
from compressor.pipeline import events as told
from compressor.report import summary_text
from compressor.service.access.keys import Keys
from compressor.service.client import stream
from tests.report.fake_report import fake_report
from tests.service.client.conftest import Server
from tests.service.client.test_client import EVENTS, FILES

JOB = ["--model", "resnet20_cifar", "--weights", "none", "--budget-flops", "50%", "--oneshot.rounds", "3"]
ERROR = {"kind": "UnreachableBudgetError", "text": "1% is too low.", "exit_code": 3}


@pytest.fixture
def at(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    monkeypatch.setenv("COMPRESSOR_SERVER", server.url)
    monkeypatch.chdir(tmp_path)
    return server


@pytest.fixture
def report_of_a_job() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(fake_report().to_json()))
    return document


def run(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> tuple[str, str]:
    found = main(list(line))
    said = capsys.readouterr()
    assert found == code, said.err
    return said.out, said.err


def submitted(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    out, _ = run(capsys, "submit", *JOB, *more, "--format", "json")
    document: dict[str, Any] = json.loads(out)
    return document


def test_the_options_of_the_main_job_arrive(at: Server, capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(capsys, "--name", "mine", "--seed", "7", "--keep", "layer1*=50%")
    assert (job["state"], job["name"]) == ("queued", "mine")
    shown, _ = run(capsys, "config", "show", *JOB, "--seed", "7", "--keep", "layer1*=50%", "--json")
    asked = json.loads(shown)
    for name, value in job["recipe"].items():
        assert asked[name] == value, name
    assert job["recipe"]["oneshot"]["rounds"] == 3
    out, _ = run(capsys, "submit", *JOB)
    assert "is queued: compress watch" in out
    listed, _ = run(capsys, "status")
    assert "mine" in listed
    one, _ = run(capsys, "status", job["id"])
    assert f"{job['id']}: queued" in one
    assert len(json.loads(run(capsys, "status", "--format", "json")[0])["jobs"]) == 2


def test_sweeps_are_asked_for_as_sweeps_are(at: Server, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--model", "resnet20_cifar", "--weights", "none", "--budgets", "flops=25%,50%", "--seeds", "0,1"]
    job = json.loads(run(capsys, "submit", *line, "--format", "json")[0])
    assert (job["kind"], job["recipe"]["budgets"], job["recipe"]["seeds"]) == (
        "sweep",
        {"flops": ["25%", "50%"]},
        [0, 1],
    )


def test_watching_says_what_a_job_here_says(
    at: Server, capsys: pytest.CaptureFixture[str], report_of_a_job: dict[str, Any]
) -> None:
    from compressor.pipeline.console import Console

    job = submitted(capsys)
    files = FILES | {"report.json": json.dumps(report_of_a_job).encode()}
    at.work(EVENTS, files)
    console = Console()
    for event in EVENTS:
        console(event)
    here = capsys.readouterr().err
    out, err = run(capsys, "watch", job["id"], "--out", "got")
    assert here in err
    assert summary_text(fake_report()) in out
    assert "got: 2 files" in out
    assert Path("got/model.safetensors").read_bytes() == FILES["model.safetensors"]
    document, _ = run(capsys, "watch", job["id"], "--format", "json", "-q")
    assert json.loads(document) == report_of_a_job


def test_submit_and_watch_in_one(
    at: Server, capsys: pytest.CaptureFixture[str], report_of_a_job: dict[str, Any]
) -> None:
    def work() -> None:
        while at.services.jobs.counts().get("queued", 0) == 0:
            time.sleep(0.05)
        at.work(EVENTS, FILES | {"report.json": json.dumps(report_of_a_job).encode()})

    worker = threading.Thread(target=work)
    worker.start()
    out, err = run(capsys, "submit", *JOB, "--out", "small")
    worker.join()
    assert "is submitted" in err
    assert "search: 1.0 s" in err
    assert "small: 2 files" in out
    assert {path.name for path in Path("small").iterdir()} == {"report.json", "model.safetensors"}


def test_the_exit_code_is_the_job_s(at: Server, capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(capsys)["id"]
    at.work([told.StageBegan("trace")], {}, "failed", ERROR)
    _, err = run(capsys, "watch", job, code=3)
    assert f"Error: Job {job} failed: 1% is too low." in err
    assert "error: 1% is too low." in run(capsys, "status", job)[0]
    assert f"{job} is queued." in run(capsys, "retry", job)[0]
    assert f"{job} is cancelled." in run(capsys, "cancel", job)[0]
    _, err = run(capsys, "watch", job, code=130)
    assert f"Job {job} was cancelled." in err


def test_a_key_in_the_terminal_ends_the_watching_alone(
    at: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(capsys)["id"]

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "parsed", interrupted)
    _, err = run(capsys, "watch", job, code=130)
    assert f"job {job} goes on. Watch it again: compress watch {job} --server {at.url}" in err
    assert "queued" in run(capsys, "status", job)[0]


def test_fetching(at: Server, capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(capsys)["id"]
    _, err = run(capsys, "fetch", job, code=2)
    assert "has written nothing yet" in err
    at.work([], FILES)
    out, _ = run(capsys, "fetch", job)
    assert sorted(out.split()) == [f"compressed/{job}/model.safetensors", f"compressed/{job}/report.json"]
    Path(f"compressed/{job}/report.json").write_text("mine")
    _, err = run(capsys, "fetch", job, code=2)
    assert "is there with other content" in err
    run(capsys, "fetch", job, "report.json", "--force")
    assert Path(f"compressed/{job}/report.json").read_bytes() == FILES["report.json"]


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (["status", "0123"], 2, "0123"),
        (["status", "--server", "http://127.0.0.1:9"], 1, "No service answers at http://127.0.0.1:9"),
        (["status", "--server", "nowhere"], 2, "is no address of a service"),
        (["status", "--key-file", "missing"], 2, "There is no file missing"),
        (["submit", "--model", "resnet18"], 2, "No budget was given"),
        (["submit", *JOB, "--lut", "x"], 2, "lut"),
        (["submit", *JOB, "--weights", "x.pt"], 2, "takes weights as .safetensors alone"),
        (["submit", *JOB, "--figs.tau", "1"], 2, "--figs.tau is for --search figs"),
    ],
)
def test_one_clear_line(at: Server, capsys: pytest.CaptureFixture[str], line: list[str], code: int, text: str) -> None:
    _, err = run(capsys, *line, code=code)
    (error,) = [each for each in err.splitlines() if each.startswith("Error: ")]
    assert text in error


def test_a_wrong_key_is_said(at: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, right = Keys(at.services.database, at.services.clock).create("mine", by="test")
    (tmp_path / "right").write_text(f"{right}\n")
    run(capsys, "status", "--key-file", "right")
    (tmp_path / "key").write_text("cmp_wrong-and-secret\n")
    _, err = run(capsys, "status", "--key-file", "key", code=2)
    assert "refuses the key" in err
    assert "secret" not in err


def test_no_torch_is_needed_to_submit() -> None:
    lines = (
        "import sys; from compressor.cli import main; "
        "code = main(['submit', '--model', 'resnet18', '--budget-flops', '50%', '--server', 'http://127.0.0.1:9']); "
        "print(code, sorted({'torch', 'sqlalchemy', 'fastapi', 'ray'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1 []", found.stderr


def test_nor_to_watch() -> None:
    lines = """
import sys
from compressor.pipeline.console import Console
from compressor.report import summary_text
from compressor.service.client.told import Teller
Teller(Console()).tell("TrainingBegan", {"stage": "a", "done": 0, "total": 2})
print("torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("False\n", "a: 2 steps\n")
