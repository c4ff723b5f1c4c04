"""Which way imports point, and that nothing is unpickled: read from the source, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compressor", "profilers", "exporters", "lut")

# What the files of a package must never import.
FORBIDDEN = {
    "lut": ("compressor", "profilers", "exporters", "torch"),
    "exporters": ("compressor", "profilers", "lut"),
    "profilers": ("compressor",),
    "compressor/graph": tuple(
        f"compressor.{name}" for name in ("masks", "costs", "search", "trim", "train", "models", "data", "api", "cli")
    ),
    "compressor/masks": tuple(f"compressor.{name}" for name in ("search", "train", "models", "data", "api", "cli")),
    "compressor/costs": tuple(
        f"compressor.{name}" for name in ("search", "trim", "train", "models", "data", "api", "cli")
    ),
    "compressor/trim": tuple(f"compressor.{name}" for name in ("search", "train", "models", "data", "api", "cli")),
    "compressor/search": ("compressor.models", "compressor.api", "compressor.cli"),
    "compressor/train": tuple(f"compressor.{name}" for name in ("search", "models", "api", "cli")),
    "compressor/models": tuple(f"compressor.{name}" for name in ("search", "train", "data", "api", "cli")),
    "compressor/data": tuple(f"compressor.{name}" for name in ("search", "train", "models", "api", "cli")),
    "compressor/api": ("compressor.cli",),
}


def files(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [p for p in [folder.with_suffix(".py")] if p.exists()]


def running_imports(node: ast.AST) -> Iterator[str]:
    """Imports that happen when the program runs; those for type checkers alone do not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from running_imports(child)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(package)
        for name in running_imports(ast.parse(file.read_text(encoding="utf-8")))
        for banned in FORBIDDEN[package]
        if name == banned or name.startswith(banned + ".")
    ]
    assert wrong == []


def test_nothing_is_unpickled() -> None:
    wrong = []
    for package in PACKAGES:
        for file in files(package):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                safe = any(
                    key.arg == "weights_only" and isinstance(key.value, ast.Constant) and key.value.value is True
                    for key in node.keywords
                )
                unpickles = called in {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"}
                if unpickles or (called == "torch.load" and not safe):
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {called}")
    assert wrong == []
