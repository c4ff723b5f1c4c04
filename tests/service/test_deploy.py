"""What ``deploy/`` starts is what this program is: its commands, options and settings."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from compressor.cli.app import group
from compressor.service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OF_CLIENTS = {"COMPRESSOR_KEY", "COMPRESSOR_SERVER"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return found


def check_command(arguments: list[str]) -> None:
    """Raise where the command line has no such command or option; nothing is run."""
    context = click.Context(group)
    command = group.get_command(context, arguments[0])
    assert command is not None, arguments
    if isinstance(command, click.Group):
        command, arguments = command.get_command(context, arguments[1]), arguments[1:]
        assert command is not None
    command.make_context(arguments[0], arguments[1:])


def check_setting(name: str) -> None:
    if name.startswith("COMPRESSOR_") and name not in OF_CLIENTS:
        assert name.removeprefix("COMPRESSOR_").lower() in ServiceSettings.model_fields, name


def test_services_of_compose(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSOR_KEY", "cmpr_x")
    services = compose["services"]
    for name, service in services.items():
        if name != "database":
            check_command(service["command"])
        for variable in service["environment"]:
            check_setting(variable)
        for network in service["networks"]:
            assert network in compose["networks"]
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"]
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[other], f"{name} would wait for {other} for ever"
    assert services["worker"]["networks"] == ["inside"]
    assert compose["networks"]["inside"]["internal"], "jobs have no way out"
    assert all(port.startswith("127.0.0.1:") for port in services["service"]["ports"])
    host = services["worker"]["command"][2].removeprefix("http://").partition(":")[0]
    assert host in services
    assert host in services["service"]["environment"]["COMPRESSOR_ALLOWED_HOSTS"], "the worker would be refused"


def test_variables_of_compose_are_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)


@pytest.mark.parametrize("line", re.findall(r"service (keys .*)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE))
def test_commands_that_compose_tells(line: str) -> None:
    check_command(shlex.split(line))


@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_units_of_systemd(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSOR_KEY", "cmpr_x")
    lines = [line for line in unit.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    said = dict(line.split("=", 1) for line in lines if not line.startswith("["))
    program, *arguments = shlex.split(said["ExecStart"])
    assert program == "/opt/compressor/bin/compress"
    check_command(["https://compress.example.org" if each == "${SERVER}" else each for each in arguments])
    for variable in shlex.split(said.get("Environment", "")):
        check_setting(variable.partition("=")[0])


def test_the_image_has_what_is_built_into_it() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (extras,) = re.findall(r"/src\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    packages = {include.rstrip("*") for include in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages == set(re.findall(r"^COPY (\w+) /src/\1$", text, re.MULTILINE))
