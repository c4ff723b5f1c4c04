"""Picking from a sweep: no training, the network of the point, and refusals that say what there is."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.budget import parse_budgets
from compressor.cli import main
from compressor.jobs.begin import require_same
from compressor.jobs.config import JobConfig
from compressor.jobs.networks import GRAPH, read_document
from compressor.models import artifact
from compressor.search import METHODS
from lut import LatencyTable
from tests.cli.job_networks import plain

BASE = shlex.split("sweep --model job_networks:plain --weights none --data digits --train-epochs 1 --export none")
TRUST = ["--trust-factories", "job_networks:plain"]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._targets, "many", "many_method:METHOD")


def pick(folder: Path, out: Path, *options: str) -> int:
    return main(["pick", str(folder), "--out", str(out), *TRUST, *options])


@pytest.fixture
def swept(tmp_path: Path, many: None, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "swept"
    asked = [*BASE, "--search", "many", "--search-epochs", "0", "--budgets", "flops=50%,90%", "--out", str(out)]
    assert main(asked) == 0, capsys.readouterr().err
    capsys.readouterr()
    return out


def outputs(folder: Path) -> Any:
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return compressor.load(folder, model=plain())(x)


@pytest.mark.parametrize("folder", [".", "many"])
def test_a_pick_is_the_point(
    folder: str, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None
) -> None:
    out = tmp_path / "out"
    assert pick(swept / folder, out, "--budget-flops", "50%", "--export", "onnx", "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert torch.equal(outputs(out), outputs(swept / "flops-50pct"))
    (budget,) = report["budgets"]
    assert budget["reached"] <= budget["limit"]
    assert report["verification"]["error"] <= 1e-9
    assert report["search"] == "many"
    assert report["accuracy"]["after_search"] == pytest.approx(0.545)
    assert (out / "model.onnx").is_file()
    assert artifact.is_complete(out)


def test_its_file_is_made_without_a_trace(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: None
) -> None:
    def traced(*args: object, **kwargs: object) -> None:
        raise AssertionError("it was traced")

    monkeypatch.setattr("exporters.formats.onnx.translate", traced)
    assert pick(swept, tmp_path / "out", "--budget-flops", "50%", "--export", "onnx") == 0
    assert artifact.load_report(tmp_path / "out").files[0].error is not None


@pytest.mark.parametrize("damage", ["gone", "changed", "of an earlier version"])
def test_its_file_is_traced_where_the_graph_is_not_what_was_written(
    damage: str, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: None
) -> None:
    graph, front = swept / "many" / GRAPH, swept / "many" / "front.json"
    if damage == "gone":
        graph.unlink()
    elif damage == "changed":
        graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    else:
        document = json.loads(front.read_text())
        del document["graph"]
        front.write_text(json.dumps(document))
    monkeypatch.setattr("exporters.formats.onnx.write_filled", None)  # what is damaged is not even read
    assert pick(swept, tmp_path / "out", "--budget-flops", "50%", "--export", "onnx") == 0
    assert artifact.load_report(tmp_path / "out").files[0].error is not None


def test_what_no_point_asked_for(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None) -> None:
    out = tmp_path / "out"
    assert pick(swept, out, "--budget-flops", "65%", "--export", "none") == 0
    assert "n2" in capsys.readouterr().err
    reached = artifact.load_report(out).costs[0]
    assert 0.5 < reached.reached / reached.original <= 0.6
    network = compressor.load(out, model=plain())
    assert bool((network.norm.running_mean == 0.25).all())


def test_of_finished_points_the_best_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept, out = tmp_path / "swept", tmp_path / "out"
    asked = [*BASE, "--search", "oneshot", "--finetune-epochs", "1", "--budgets", "flops=40%,80%"]
    assert main([*asked, "--out", str(swept)]) == 0
    assert pick(swept, out, "--budget-flops", "60%", "--export", "onnx") == 0
    assert torch.equal(outputs(out), outputs(swept / "flops-40pct"))
    report = artifact.load_report(out)
    assert [budget.asked for budget in report.budgets] == ["60%"]
    assert [file.path for file in report.files if file.format == "onnx"] == ["model.onnx"]
    capsys.readouterr()
    for asked, said in ((["--budget-flops", "60%"], "leave it out"), (["--budget-latency", "60%"], "not timed")):
        assert pick(swept, tmp_path / "other", *asked, "--target", "simulated") == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("folder", [".", "many"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_pick_never_takes_the_place_of_what_it_is_taken_from(
    folder: str, force: list[str], swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in swept.rglob("*") if path.is_file()}
    assert pick(swept / folder, swept / folder / ".." / (swept / folder).name, "--budget-flops", "50%", *force) == 2
    assert "another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in swept.rglob("*") if path.is_file()} == before


def test_latencies_are_those_of_one_target(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((swept / "front.json").read_text())
    for front in document["fronts"]:
        front["target"], front["original"]["latency"] = "simulated", 2.0
        for row in front["rows"]:
            row["costs"]["latency"] = 1.0
    (swept / "front.json").write_text(json.dumps(document | {"searches": []}))
    assert pick(swept, tmp_path / "out", "--budget-latency", "90%", "--target", "elsewhere") == 2
    assert "known on simulated, not on elsewhere" in capsys.readouterr().err


def with_latencies(folder: Path, timed_on: dict[str, Any] | None) -> None:
    """Let the networks in ``folder`` have latencies that were measured on a target."""
    document = json.loads((folder / "front.json").read_text())
    front = document["front"]
    front["original"]["latency"], front["compared"] = 2.0, ["flops"]
    for row in front["rows"]:
        row["costs"]["latency"] = 2.0 * row["costs"]["flops"] / front["original"]["flops"]
    (folder / "front.json").write_text(json.dumps(document | {"timed_on": timed_on}))


TIMED = {"name": "simulated", "threads": 2, "label": "simulated 1, on a desk"}
NO_TABLE = "knows nothing of {}; measure it first: compress profile --model job_networks:plain --target {}"


@pytest.mark.parametrize("folder", [".", "many"])
@pytest.mark.parametrize(
    ("timed_on", "asked", "refused"),
    [
        (TIMED, [], None),
        (TIMED, ["--target", "simulated"], None),
        (TIMED, ["--target", "simulated", "--threads", "2"], None),
        (TIMED, ["--target", "onnxruntime-cpu"], "onnxruntime-cpu"),
        (TIMED, ["--target", "simulated", "--threads", "1"], "simulated"),
        (TIMED, ["--threads", "1"], "simulated"),
        (None, [], None),
        (None, ["--target", "onnxruntime-cpu"], "onnxruntime-cpu"),
    ],
)
def test_latencies_of_one_target_are_not_taken_for_those_of_another(
    folder: str,
    timed_on: dict[str, Any] | None,
    asked: list[str],
    refused: str | None,
    swept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_latencies(swept / "many", timed_on)
    lut = tmp_path / "lut.sqlite"
    LatencyTable(lut).close()
    more = [*asked, "--lut", str(lut), "--export", "none"]
    code = pick(swept / folder, tmp_path / "out", "--budget-latency", "1.3ms", *more)
    said = capsys.readouterr().err
    if refused is None:
        assert code == 0, said
        (budget,) = artifact.load_report(tmp_path / "out").budgets
        assert (budget.cost, budget.original) == ("latency", 2.0)
        return
    assert code == 2
    assert NO_TABLE.format(refused, refused) in said
    assert (TIMED["label"] in said) == (timed_on is not None), "whose latencies the front has"
    assert not (tmp_path / "out").exists()


def test_of_several_targets_that_which_is_meant(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None
) -> None:
    """A sweep over targets has a search for each, whose networks are picked from, too."""
    shutil.copytree(swept / "many", swept / "many-b")
    with_latencies(swept / "many", TIMED)
    with_latencies(swept / "many-b", {**TIMED, "name": "b"})
    document = json.loads((swept / "front.json").read_text())
    (front,) = document["fronts"]
    document |= {"searches": ["many", "many-b"], "fronts": [front | {"target": t} for t in ("simulated", "b")]}
    (swept / "front.json").write_text(json.dumps(document))
    assert pick(swept, tmp_path / "out", "--budget-latency", "1.3ms", "--target", "b", "--export", "none") == 0
    assert "n2 is the best" in capsys.readouterr().err
    assert pick(swept, tmp_path / "other", "--budget-flops", "65%", "--export", "none") == 2
    assert "points for simulated, b; name one with --target" in capsys.readouterr().err


def test_a_job_begins_at_networks_of_its_own_target(swept: Path, tmp_path: Path) -> None:
    with_latencies(swept / "many", TIMED)
    config = JobConfig("m", parse_budgets({"latency": "1ms"}), "out", target="b", start=str(swept / "many"))
    document = replace(read_document(swept / "many"), settings={})
    with pytest.raises(
        compressor.CompressorError, match=r"are of simulated 1, on a desk, and --target b was asked for"
    ):
        require_same(config, document)
    require_same(replace(config, target="simulated"), document)
    require_same(config, replace(document, timed_on=None))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--budget-flops", "10%"], 3, "flops goes from"),
        (["--budget-params", "50%"], 2, "knows flops, and no params"),
        (["--budget-latency", "3ms"], 2, "name the target"),
        (["--budget-latency", "3ms", "--target", "onnxruntime-cpu", "--lut", "LUT"], 2, "compress profile --model"),
        ([], 2, "No budget was given"),
        (["--budget-flops", "50%", "--export", "nothing"], 2, "export format"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str],
    code: int,
    said: str,
    swept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    many: None,
) -> None:
    options = [str(tmp_path / "lut.sqlite") if word == "LUT" else word for word in options]
    assert pick(swept, tmp_path / "out", *options) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pick(tmp_path, tmp_path / "out", "--budget-flops", "50%") == 2
    assert "no folder of compress sweep" in capsys.readouterr().err


def test_damage_is_found(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None) -> None:
    weights = swept / "many" / "supernet.safetensors"
    content = bytearray(weights.read_bytes())
    content[-10] ^= 1
    weights.write_bytes(bytes(content))
    assert pick(swept, tmp_path / "out", "--budget-flops", "50%") == 2
    assert "damaged" in capsys.readouterr().err
    front = swept / "many" / "front.json"
    front.write_text(front.read_text()[:-20])
    assert pick(swept / "many", tmp_path / "out", "--budget-flops", "50%") == 2


def test_a_folder_runs_no_code_that_is_not_trusted(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None
) -> None:
    assert main(["pick", str(swept), "--out", str(tmp_path / "out"), "--budget-flops", "50%"]) == 2
    assert "--trust-factories" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"search": "many", "options": {"nothing": 1}, "seed": 0}},
        {"settings": {"search": "many", "options": {}, "seed": "x"}},
        {"settings": {"search": "nothing", "options": {}, "seed": 0}},
        {"inputs": {"args": [{"tensor": None}], "kwargs": []}},
        {"before": {"anything": 1}},
        {"description": {"spec": "resnet18", "source": "torchvision", "kwargs": {}}},
        {"description": {"spec": "x", "source": "torchvision", "kwargs": {"num_classes": 10**9}}},
        {"description": None},
        {"scores": {"other": 1}},
        {"front": {"schema_version": 1}},
        {"front": []},
        {"units": 3},
        {"schema_version": 9},
        {"weights": {}},
    ],
)
def test_what_anybody_may_have_written_is_refused(
    change: dict[str, Any], swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None
) -> None:
    file = swept / "many" / "front.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert pick(swept / "many", tmp_path / "out", "--budget-flops", "50%") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "Unexpected" not in errors[0]


@pytest.mark.slow
def test_a_search_writes_whose_its_latencies_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, lut = tmp_path / "out", str(tmp_path / "lut.sqlite")
    asked = [
        *BASE[1:],
        "--search",
        "supernet",
        "--search-epochs",
        "1",
        "--finetune-epochs",
        "0",
        "--bench-seconds",
        "0",
    ]
    asked += ["--supernet.population", "4", "--supernet.generations", "0", "--budget-latency", "90%"]
    assert main([*asked, "--target", "simulated", "--threads", "1", "--lut", lut, "--out", str(out)]) == 0
    timed_on = read_document(out).timed_on
    assert timed_on is not None
    assert (timed_on.name, timed_on.threads) == ("simulated", 1)
    assert "simulated" in timed_on.label
    capsys.readouterr()
    other = ["--budget-latency", "90%", "--target", "onnxruntime-cpu", "--lut", lut]
    assert pick(out, tmp_path / "other", *other) == 2
    assert NO_TABLE.format("onnxruntime-cpu", "onnxruntime-cpu") in capsys.readouterr().err


@pytest.mark.slow
def test_latency_from_a_table(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None) -> None:
    lut = str(tmp_path / "lut.sqlite")
    where = ["--target", "simulated", "--lut", lut]
    model = ["--model", "job_networks:plain", "--input-shape", "1,8,8"]
    assert main(["profile", *model, *where]) == 0
    out = tmp_path / "out"
    capsys.readouterr()
    assert pick(swept, out, "--budget-latency", "90%", *where, "--export", "none") == 0, capsys.readouterr().err
    (budget,) = artifact.load_report(out).budgets
    assert budget.cost == "latency"
    assert 0 < budget.reached <= budget.limit < budget.original
    assert pick(swept, tmp_path / "other", "--budget-latency", "1%", *where) == 3
    assert "latency goes from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("score", "budget", "code", "taken"),
    [
        (0.99, "65%", 0, "flops-50pct"),
        (0.99, "50%", 0, "flops-50pct"),
        (0.545, "50%", 0, "n1"),
        (0.1, "65%", 0, "n2"),
        (0.99, "40%", 0, "n0"),
        (0.99, "10%", 3, "goes"),
    ],
)
def test_a_point_that_was_trained_on_is_taken_where_it_is_better(
    score: float,
    budget: str,
    code: int,
    taken: str,
    swept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    many: None,
) -> None:
    """What a search left was not fine-tuned; the points, which were, may be better."""
    document = json.loads((swept / "front.json").read_text())
    for row in [*document["points"], *document["fronts"][0]["rows"]]:
        if row["name"] == "flops-50pct":
            row["score"] = score
    (swept / "front.json").write_text(json.dumps(document))
    assert pick(swept, tmp_path / "out", "--budget-flops", budget, "--export", "none") == code
    said = capsys.readouterr().err
    if code == 0:
        assert f"{taken} is the best" in said
