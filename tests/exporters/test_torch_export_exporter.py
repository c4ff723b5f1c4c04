from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from exporters.errors import ExporterUsageError, UnsupportedExportError
from exporters.formats.torch_export import TorchExportExporter, load_program
from tests.exporters.export_models import Convnet, FixedBatch, ManyOutputs, Refuses

IMAGE = torch.zeros(1, 3, 12, 12)


def test_checked_on_several_batches(tmp_path: Path) -> None:
    info = TorchExportExporter().export(Convnet().train(), IMAGE, tmp_path / "model.pt2")
    assert [check.batch for check in info.checks] == [1, 2, 5]
    assert info.rel_error is not None
    assert info.rel_error <= 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


def test_dict_outputs(tmp_path: Path) -> None:
    info = TorchExportExporter().export(ManyOutputs("nested"), torch.randn(1, 6), tmp_path / "model.pt2")
    assert len(info.checks) == 3


def test_static_fallback_and_refusal(tmp_path: Path) -> None:
    info = TorchExportExporter().export(FixedBatch(), torch.randn(3, 6), tmp_path / "model.pt2")
    assert not info.dynamic_batch
    assert info.notes
    with pytest.raises(UnsupportedExportError, match="Refuses"):
        TorchExportExporter().export(Refuses(), IMAGE, tmp_path / "other.pt2")
    assert not (tmp_path / "other.pt2").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ExporterUsageError, match="There is no file"):
        load_program(tmp_path / "none.pt2")
    (tmp_path / "junk.pt2").write_bytes(b"junk")
    with pytest.raises(ExporterUsageError, match=r"is no \.pt2 file"):
        load_program(tmp_path / "junk.pt2")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


def test_pickled_objects_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Both ways in: an object among the constants, and code in the sample inputs."""
    good = tmp_path / "good.pt2"
    TorchExportExporter().export(Convnet(), IMAGE, good, check=False)
    bomb = io.BytesIO()
    torch.save(_Bomb(), bomb)
    for name, content in [
        ("data/sample_inputs/model.pt", bomb.getvalue()),
        (
            "data/constants/model_constants_config.json",
            b'{"config": {"x": {"path_name": "opaque_obj_0", "use_pickle": true, "is_param": false}}}',
        ),
    ]:
        bad = tmp_path / "bad.pt2"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for entry in source.namelist():
                target.writestr(entry, content if entry.endswith(name) else source.read(entry))
        with pytest.raises(ExporterUsageError):
            load_program(bad)
    assert "must never run" not in capfd.readouterr().out
