"""A run that is killed and started again ends with the bits of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressor.errors import CompressorError, UsageError
from compressor.storage.job import Job
from compressor.train import Hooks, TrainConfig, Trainer
from tests.train.tiny import fingerprint, tiny_data, tiny_model

SCRIPT = Path(__file__).with_name("killed.py")
ROOT = Path(__file__).parents[2]
TOTAL_STEPS = 50


def start(folder: Path, interval_s: float, optimizer: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(folder / "c.safetensors"), str(folder / "result.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [*command, str(interval_s), optimizer], stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    )


def finish(process: subprocess.Popen[str]) -> list[int]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return [int(line) for line in out.split()]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")
@pytest.mark.parametrize(("optimizer", "seed"), [("sgd", 0), ("adamw", 1)])
def test_killed_at_random_moments(tmp_path: Path, optimizer: str, seed: int) -> None:
    source = random.Random(seed)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    assert finish(start(alone, 1000.0, optimizer)) == list(range(TOTAL_STEPS))
    for _ in range(4):
        # Writing after every step, the kill likely falls into a write; every 0.02 s, into steps that are lost.
        with start(killed, source.choice([0.0, 0.02]), optimizer) as process:
            assert process.stdout is not None
            for _ in range(source.randint(2, 12)):
                process.stdout.readline()
            process.kill()
            process.stdout.read()
    last = finish(start(killed, 0.0, optimizer))
    assert not last or last[0] > 0, "it began anew"
    assert json.loads((killed / "result.json").read_text()) == json.loads((alone / "result.json").read_text())


def train(steps_then_stop: int | None, checkpoint: Path | None, model: torch.nn.Module) -> None:
    """Train the model; stop with an exception after so many steps, as a crash would."""

    class Crash(Hooks):
        def after_step(self, step: int, total_steps: int) -> None:
            if steps_then_stop is not None and step + 1 > steps_then_stop:
                raise KeyboardInterrupt

    config = TrainConfig(epochs=3, batch_size=16, checkpoint_seconds=0.0)
    Trainer(model, tiny_data(), config, checkpoint=checkpoint, hooks=Crash()).run()


@pytest.mark.parametrize("stop", [0, 1, 5, 9, 14])
def test_stopped_inside_and_at_the_ends_of_epochs(tmp_path: Path, stop: int) -> None:
    alone, again = tiny_model(), tiny_model()
    train(None, None, alone)
    with pytest.raises(KeyboardInterrupt):
        train(stop, tmp_path / "c.safetensors", tiny_model())
    random.random()
    torch.rand(3)  # the caller's generators must not matter
    train(None, tmp_path / "c.safetensors", again)
    assert fingerprint(again) == fingerprint(alone)


def test_weights_laid_out_channels_last(tmp_path: Path) -> None:
    models = [tiny_model().to(memory_format=torch.channels_last) for _ in range(3)]
    train(None, None, models[0])
    with pytest.raises(KeyboardInterrupt):
        train(7, tmp_path / "c.safetensors", models[1])
    train(None, tmp_path / "c.safetensors", models[2])
    assert fingerprint(models[2]) == fingerprint(models[0])
    assert models[2][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_killed_inside_a_stage_of_a_job(tmp_path: Path) -> None:
    alone, again = tiny_model(), tiny_model()
    train(None, None, alone)
    with Job.open(tmp_path, {"seed": 0}) as job, pytest.raises(KeyboardInterrupt):
        train(6, job.checkpoint("finetune"), tiny_model())
    with Job.open(tmp_path, {"seed": 0}) as job:
        assert job.stage("finetune") is None
        train(None, job.checkpoint("finetune"), again)
        job.store("finetune", {"steps": 15}, again.state_dict())
        assert not job.checkpoint("finetune").exists()
    assert fingerprint(again) == fingerprint(alone)
    with Job.open(tmp_path, {"seed": 0}) as job:
        stored = job.stage("finetune")
        assert stored is not None
        assert {name: tensor.numpy().tobytes() for name, tensor in stored.tensors.items()} == fingerprint(alone)


def test_finished_run_returns_at_once(tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=16)
    path = tmp_path / "c.safetensors"
    model, other = tiny_model(), tiny_model(seed=5)
    first = Trainer(model, tiny_data(), config, checkpoint=path).run()

    class Refuse(Hooks):
        def before_step(self, step: int, total_steps: int) -> None:
            raise AssertionError("no step was left to do")

    assert Trainer(other, tiny_data(), config, checkpoint=path, hooks=Refuse()).run() == first
    assert fingerprint(other) == fingerprint(model)


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1), checkpoint=path).run()
    with pytest.raises(UsageError, match=r"lr was 0.05, now 0.1"):
        Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1, lr=0.1), checkpoint=path).run()
    with pytest.raises(UsageError, match=r"6.weight is .*32"):
        Trainer(tiny_model(classes=7), tiny_data(), TrainConfig(epochs=1), checkpoint=path).run()
    path.write_bytes(b"garbage")
    with pytest.raises(UsageError, match="cannot be read"):
        Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1), checkpoint=path).run()


def test_what_an_earlier_version_began_otherwise_begins_anew_where_that_is_asked_for(tmp_path: Path) -> None:
    path, told = tmp_path / "c", list[str]()
    with pytest.raises(KeyboardInterrupt):
        train(3, path, tiny_model())
    before = path.read_bytes()
    other = TrainConfig(epochs=3, batch_size=16, lr=0.2, steps_after=4)
    fewer = Trainer(tiny_model(), tiny_data(48), other, checkpoint=path, anew=told.append)
    with pytest.raises(UsageError, match="samples was"):  # other data is no matter of versions
        fewer.run()
    assert path.read_bytes() == before
    anew, plain = tiny_model(), tiny_model()
    Trainer(anew, tiny_data(), other, checkpoint=path, anew=told.append).run()
    Trainer(plain, tiny_data(), other).run()
    assert fingerprint(anew) == fingerprint(plain)
    assert len(told) == 1
    assert "lr was 0.05, now 0.2" in told[0]


def test_how_often_it_is_saved_is_free_to_change(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1), checkpoint=path).run()
    Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1, checkpoint_seconds=1.0), checkpoint=path).run()


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    (tmp_path / ".c.99-ab.tmp.safetensors").write_bytes(b"half")
    result = Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1), checkpoint=path).run()
    assert result.steps == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_checkpoint_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompressorError, match="Cannot write") as caught:
        Trainer(tiny_model(), tiny_data(), TrainConfig(epochs=1), checkpoint=tmp_path / "file" / "c").run()
    assert "\n" not in str(caught.value)


def test_state_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    class Odd:
        def state_dict(self) -> dict[str, object]:
            return {"thing": object()}

    class Search(Hooks):
        stateful = {"odd": Odd()}  # type: ignore[assignment]  # noqa: RUF012

    with pytest.raises(CompressorError, match="state/hooks/odd/thing is a object"):
        Trainer(
            tiny_model(), tiny_data(), TrainConfig(epochs=1), checkpoint=tmp_path / "c.safetensors", hooks=Search()
        ).run()
