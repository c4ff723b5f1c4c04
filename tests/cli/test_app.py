"""The command line as a whole: lean start, exit codes, one-line errors, one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from compressor.cli import main
from compressor.errors import CompressorError, UnreachableBudgetError, UnsupportedModelError, VerificationError
from compressor.jobs.config import JobConfig

JOB = ["--model", "resnet18", "--budget-flops", "50%"]


class FakeReport:
    def to_json(self) -> dict[str, Any]:
        return {"schema_version": 7, "reached": 1}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the job itself; an exception put into the list is raised by the next run."""
    seen: list[Any] = []

    def run_job(config: JobConfig, *, events: Any) -> FakeReport:
        planned = seen.pop() if seen and isinstance(seen[-1], BaseException) else None
        seen.append(config)
        print("a library prints to stdout")
        events.info("working")
        if planned is not None:
            raise planned
        return FakeReport()

    api = ModuleType("compressor.jobs.run")
    api.run_job = run_job  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "compressor.jobs.run", api)
    monkeypatch.setattr("compressor.report.summary_text", lambda report: "half as big")
    return seen


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], [], ["bench", "--help"], ["inspect", "--help"], ["--model", "x"]]
)
def test_torch_is_not_imported_before_a_command_runs(arguments: list[str]) -> None:
    heavy = ("torch", "torchvision", "numpy", "onnx", "onnxruntime", "rich", "safetensors", "sklearn")
    code = (
        f"import sys; from compressor.cli import main; main({arguments!r}); "
        f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])"
    )
    assert python(code).stdout.splitlines()[-1] == "LOADED []"


def test_python_dash_m() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "compressor", "--version"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0
    assert found.stdout.startswith("compressor ")


def test_help_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--budget-flops", "--weights", "--debug", "inspect", "bench", "export", "report", "models", "130"):
        assert word in text


def test_text_result_alone_on_stdout(jobs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(JOB) == 0
    out, err = capsys.readouterr()
    assert out == "half as big\n"
    assert "a library prints" in err
    assert "working" in err


def test_json_result_is_one_document_even_when_libraries_print(
    jobs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*JOB, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema_version": 7, "reached": 1}


def test_quiet(jobs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    main([*JOB, "--quiet"])
    assert "working" not in capsys.readouterr().err


class ForeignError(Exception):
    exit_code = 4


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UnreachableBudgetError("the smallest reachable is 3 G"), 3, "the smallest reachable is 3 G"),
        (UnsupportedModelError("its forward raises"), 4, "its forward raises"),
        (VerificationError("differs"), 5, "differs"),
        (CompressorError("two\nlines"), 1, "two lines"),
        (ForeignError("refused by the runtime"), 4, "refused by the runtime"),
        (OSError(28, "No space left on device", "x.bin"), 1, "No space left"),
        (MemoryError(), 1, "Out of memory"),
        (KeyError("oops"), 1, "--debug"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_errors_are_one_line_with_their_exit_code(
    jobs: list[Any], capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str, as_json: bool
) -> None:
    jobs.append(error)
    assert main([*JOB, "--quiet", *(["--format=json"] if as_json else [])]) == code
    out, err = capsys.readouterr()
    line = err.replace("a library prints to stdout\n", "")
    assert line.startswith("Error: ")
    assert line.count("\n") == 1
    assert said in line
    assert "Traceback" not in err
    if as_json:
        document = json.loads(out)
        assert document["error"]["exit_code"] == code
        assert document["error"]["type"] == type(error).__name__
        assert said in document["error"]["message"]
    else:
        assert out == ""


def test_debug_shows_the_traceback(jobs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    jobs.append(KeyError("oops"))
    assert main([*JOB, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_interrupt_says_how_to_go_on(jobs: list[Any], capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    jobs.append(KeyboardInterrupt())
    assert main([*JOB, "--out", "some/where", *(["--format", "json"] if as_json else [])]) == 130
    out, err = capsys.readouterr()
    assert "some/where" in err.splitlines()[-1]
    assert "go on" in err.splitlines()[-1]
    assert "Traceback" not in err
    if as_json:
        assert json.loads(out)["error"]["exit_code"] == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["benc"], "did you mean 'bench'"),
        (["resnet50"], "compress --model"),
        (["--budget-flops", "2G"], "--model"),
        (["--model", "resnet50"], "--budget-flops 50%"),
        (["--model", "resnet50", "--budget-flops", "2X"], "2X"),
        (["--model", "resnet50", "--budget-flops", "0"], "above zero"),
        ([*JOB, "--finetune-epochs", "3"], "--data"),
        ([*JOB, "--batch-size", "0"], "--batch-size"),
        ([*JOB, "--tune", "short"], "--data"),
        ([*JOB, "--data", "digits", "--finetune-epochs", "0", "--tune", "short"], "--finetune-epochs"),
        ([*JOB, "--data", "digits", "--tune", "shrt"], "Did you mean short"),
        ([*JOB, "--data", "digits", "--tune.lr", "0.1,fast"], "--tune.lr"),
        ([*JOB, "--data", "digits", "--tune.lr", ","], "--tune.lr"),
        ([*JOB, "--data", "digits", "--tune.lr", "0.1", "--tune", "none"], "keep one of them"),
        ([*JOB, "--data", "digits", "--trial-workers", "0"], "--trial-workers"),
        (["--tune.weight-decay", "0.1", "inspect", "--model", "resnet18"], "--tune.weight-decay"),
        ([*JOB, "--input-shape", "3,a"], "3,224,224"),
        ([*JOB, "--export", "onx"], "Did you mean onnx"),
        ([*JOB, "--device", "tpu"], "cuda"),
        ([*JOB, "--lr", "nan"], "lr"),
        ([*JOB, "--no-such-option"], "--no-such-option"),
        (["--model", "resnet18", "inspect"], "compress inspect --model"),
        (["inspect"], "--model"),
        (["report", "/no/such/folder"], "/no/such/folder"),
        (["models", "no-such-model-anywhere"], "No model matches"),
        (["export", "--model", "resnet18", "--to", "none"], "--to onnx"),
        (["bench", "a", "--model", "a"], "twice"),
        (["bench"], "nothing to time"),
    ],
)
def test_usage_errors_exit_with_2(
    jobs: list[Any], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert not jobs


def test_usage_errors_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--format", "json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["error"]["exit_code"] == 2


def test_options_become_the_job(jobs: list[Any]) -> None:
    arguments = (
        "--model resnet20_cifar --weights none --data digits --search figs --budget-flops 30% --budget-params 1e5 "
        "--budget-memory 1MiB --train-epochs 4 --search-epochs 2 --finetune-epochs 3 --batch-size 32 --lr 0.1 "
        "--distill 0.5 --round-to 8 --include layer1* --include layer2* --exclude *.conv1 --export onnx,torch-export "
        "--out o --force --seed 5 --device cpu --num-classes 10 --input-shape 1,8,8"
    )
    assert main(arguments.split()) == 0
    (job,) = jobs
    assert [(budget.cost, budget.text) for budget in job.budgets] == [
        ("flops", "30%"),
        ("params", "1e5"),
        ("memory", "1MiB"),
    ]
    assert (job.train_epochs, job.search_epochs, job.finetune_epochs, job.batch_size) == (4, 2, 3, 32)
    assert (job.include, job.exclude, job.export) == (("layer1*", "layer2*"), ("*.conv1",), ("onnx", "torch-export"))
    assert (job.out, job.force, job.seed, job.device, job.input_shape) == ("o", True, 5, "cpu", (1, 8, 8))


def test_a_grid_becomes_part_of_the_job(jobs: list[Any]) -> None:
    data = [*JOB, "--data", "digits"]
    assert main([*data, "--tune.lr", "0.1, 0.01,0.1", "--tune.dropout", "0", "--tune-epochs", "3"]) == 0
    assert main([*data, "--tune", "paper", "--tune-samples", "0.5", "--trial-workers", "4"]) == 0
    assert main(data) == 0
    own, paper, plain = jobs
    assert (own.tune, own.tune_epochs) == ({"lr": (0.1, 0.01), "dropout": (0.0,)}, 3)
    assert (paper.tune, paper.tune_samples, paper.trial_workers) == ("paper", 0.5, 4)
    assert (plain.tune, plain.tune_epochs, plain.tune_samples, plain.trial_workers) == ("auto", None, 0.2, 1)


def test_defaults_depend_on_data(jobs: list[Any]) -> None:
    main(JOB)
    main([*JOB, "--data", "digits", "--export", "none"])
    without, with_data = jobs
    assert (without.search, without.search_epochs, without.finetune_epochs) == ("oneshot", 0, 0)
    assert (with_data.search, with_data.search_epochs, with_data.finetune_epochs) == ("oneshot", 0, 10)
    assert with_data.export == ()
    assert without.out == "compressed/resnet18-flops-50pct"


@pytest.mark.parametrize(
    ("given", "search", "epochs"),
    [
        (["--search-epochs", "3"], "figs", (3, 5)),
        (["--search-epochs", "3", "--finetune-epochs", "2"], "figs", (3, 2)),
        (["--search-epochs", "0"], "oneshot", (0, 10)),
        (["--finetune-epochs", "4"], "oneshot", (0, 4)),
        (["--finetune-epochs", "0"], "oneshot", (0, 0)),
        (["--search", "oneshot"], "oneshot", (5, 5)),
        (["--search", "figs"], "figs", (5, 5)),
        (["--figs.lr", "0.1"], "figs", (5, 5)),
        (["--dnarch.every", "3", "--search-epochs", "7"], "dnarch", (7, 5)),
    ],
)
def test_what_is_said_of_a_search_chooses_it(
    given: list[str], search: str, epochs: tuple[int, int], jobs: list[Any]
) -> None:
    main([*JOB, "--data", "digits", "--export", "none", *given])
    assert (jobs[0].search, (jobs[0].search_epochs, jobs[0].finetune_epochs)) == (search, epochs)
    short = search == "figs" and "--search-epochs" in given
    assert dict(jobs[0].options).get("least_steps") == (400 if short else None)


def test_an_empty_folder_is_none(jobs: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for command in (JOB, ["sweep", "--model", "resnet18", "--budgets", "flops=50%"]):
        assert main([*command, "--out", ""]) == 2
        assert "'--out': it must be the name of a file or folder" in capsys.readouterr().err
    assert jobs == []


def test_output_options_count_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--format", "json", "models", "resnet18"], ["models", "resnet18", "--format", "json"]):
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "models": ["resnet18"]}


def test_a_reader_that_stops_reading_is_no_error() -> None:
    code = "import sys; from compressor.cli import main; sys.exit(main(['models']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
