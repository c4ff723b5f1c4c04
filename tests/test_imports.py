"""The house holds: which rooms there are, which way imports point, and that nothing is unpickled.

All of it is read from the source; nothing is run. Imports for type checkers and imports inside functions count, too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compressor", "profilers", "exporters", "lut")

#: Bottom up: a room imports only itself and what stands above it in this list.
ROOMS = (
    "lut",
    "compressor.printable",
    "compressor.errors",
    "compressor.arrays",
    "compressor.plugins",
    "compressor.process",
    "compressor.options",
    "compressor.budget",
    "exporters",
    "profilers",
    "compressor.storage",
    "compressor.nn",
    "compressor.architecture",
    "compressor.graph",
    "compressor.masks",
    "compressor.costs",
    "compressor.data",
    "compressor.trim",
    "compressor.train",
    "compressor.backbones",
    "compressor.report",
    "compressor.models",
    "compressor.search",
    "compressor.latency",
    "compressor.deploy",
    "compressor.pipeline",
    "compressor.integrations",
    "compressor.jobs",
    "compressor.service",
    "compressor.api",
    "compressor",
    "compressor.cli",
    "compressor.testing",
)
#: Rooms that a light part of the program imports: no torch, whatever they lead to.
LIGHT = ("lut", "compressor.options.shared", "compressor.budget", "compressor.jobs.config", "compressor.cli.app")
HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxruntime", "sklearn", "fvcore", "safetensors"}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room(module: str) -> str:
    parts = module.split(".")
    inside = next((r for n in (2, 1) if (r := ".".join(parts[:n])) in ROOMS), None)
    if module == "compressor.__main__":
        return "compressor.cli"
    assert inside is not None
    assert inside != "compressor" or len(parts) == 1, f"{module} is in no room"
    return inside


def imports(node: ast.AST, *, always: bool = True) -> Iterator[str]:
    """Modules that a module imports; without ``always`` those alone that its own import brings in."""
    for child in ast.iter_child_nodes(node):
        inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        if not always and (inner or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module, "imports are absolute"
            assert not child.level, "imports are absolute"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (name if name in modules() else child.module for name in names)
        yield from imports(child, always=always)


@cache
def imported(module: str, always: bool = True) -> frozenset[str]:
    return frozenset(imports(ast.parse(modules()[module].read_text(encoding="utf-8")), always=always))


def test_imports_point_one_way() -> None:
    rank = {name: index for index, name in enumerate(ROOMS)}
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        for other in imported(module)
        if other in modules() and rank[room(other)] > rank[room(module)]
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {other for other in imported(module) if other in modules()} for module in modules()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", LIGHT)
def test_what_reads_a_command_line_imports_nothing_heavy(module: str) -> None:
    pending, seen = [module], {module}
    while pending:
        here = pending.pop()
        parents = {here.rpartition(".")[0]} & set(modules())  # their __init__ runs first
        for other in imported(here, False) | parents:
            assert other.partition(".")[0] not in HEAVY, f"{here} imports {other}"
            if other in modules() and other not in seen:
                seen.add(other)
                pending.append(other)


def test_a_job_begins_without_the_compiler() -> None:
    """It takes as long to import as everything else together."""
    said = "import sys, compressor.jobs.run; print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_nothing_lies_loose() -> None:
    assert len(list((ROOT / "compressor").glob("*.py"))) <= 7
    lengths = sorted(len(file.read_text(encoding="utf-8").splitlines()) for file in modules().values())
    assert lengths[len(lengths) // 2] <= 120
    assert [name for name, file in modules().items() if len(file.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_every_method_is_a_folder_with_the_same_files() -> None:
    folders = [
        place for place in (ROOT / "compressor" / "search" / "methods").iterdir() if (place / "config.py").exists()
    ]
    assert len(folders) >= 3
    for folder in folders:
        there = {file.stem for file in folder.glob("*.py")}
        learns = "trains=True" in (folder / "config.py").read_text(encoding="utf-8")
        assert {"config", "method"} | ({"learner", "decision"} if learns else set()) <= there, folder.name


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


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
