"""What can be set for a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import UsageError
from compressor.service.settings import settings_of


def test_the_environment_sets_and_options_go_over_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPRESSOR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COMPRESSOR_PORT", "9000")
    monkeypatch.setenv("COMPRESSOR_MOST_RUNNING", "4")
    monkeypatch.setenv("COMPRESSOR_ALLOWED_HOSTS", "a.example.org, b.example.org,")
    monkeypatch.setenv("COMPRESSOR_DATASETS", "cifar10=cifar10:/data/cifar10, mine = npz:/data/x=1.npz")
    monkeypatch.setenv("COMPRESSOR_NOTHING_OF_OURS", "1")
    settings = settings_of(port=9001, workers=None)
    assert (settings.port, settings.workers, settings.most_running) == (9001, 1, 4)
    assert settings.allowed_hosts == ["a.example.org", "b.example.org"]
    assert settings.datasets == {"cifar10": "cifar10:/data/cifar10", "mine": "npz:/data/x=1.npz"}
    assert settings.database == f"sqlite:///{tmp_path / 'service.sqlite'}"
    assert settings.artefacts_url == str(tmp_path / "artefacts")
    monkeypatch.setenv("COMPRESSOR_DATASETS", '{"a": "imagefolder:/data, with a comma"}')
    assert settings_of().datasets == {"a": "imagefolder:/data, with a comma"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", 70_000),
        ("workers", -1),
        ("lease_seconds", 0),
        ("keep_days", -1),
        ("log_format", "xml"),
        ("datasets", "cifar10"),
        ("datasets", "{broken"),
        ("nonsense", 1),
    ],
)
def test_what_cannot_be_set_is_one_line(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"The setting {name} is ") as told:
        settings_of(**{name: value})
    assert "\n" not in str(told.value)


def test_a_server_without_settings_is_for_this_machine_alone() -> None:
    settings = settings_of()
    assert settings.host == "127.0.0.1"
    assert settings.data_dir.parts[-2:] == ("compressor", "service")
    assert not settings.open_metrics
