"""``compress export --model M --to onnx``: write a model in a deployment format, checked against PyTorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from compressor.cli.options import Names, model_option, structure_options
from compressor.cli.output import Output, output_options
from compressor.cli.structure import load_structure
from compressor.cli.tables import amount
from compressor.errors import UsageError


@click.command()
@model_option(required=True)
@click.option(
    "--weights", default="default", metavar="W", help="default, none or a file, as for the main job. [default]"
)
@structure_options
@click.option("--to", "formats", type=Names(), default=("onnx",), metavar="F,...", help="Formats to write. [onnx]")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Folder to write to. [.]")
@click.option("--force", is_flag=True, help="Overwrite files.")
@output_options
def export(
    model: str,
    weights: str,
    num_classes: int | None,
    input_shape: tuple[int, ...] | None,
    formats: tuple[str, ...],
    out: Path,
    force: bool,
    output: Output,
) -> None:
    """Write a model, or a saved folder's model, for the runtime it is to run in."""
    if not formats:
        raise UsageError("No format was given; pass at least one, for example --to onnx.")
    with output.working():
        from compressor.bench import export_all
        from exporters import registry

        stem = re.sub(r"[^\w.-]+", "-", Path(model).name if Path(model).is_dir() else model)
        for path in [out / f"{stem}{registry.get(name).suffix}" for name in formats]:
            if path.exists() and not force:
                raise UsageError(f"'{path}' exists; pass --force to overwrite it, or another --out.")
        console = output.console()
        loaded = load_structure(model, weights=weights, num_classes=num_classes, input_shape=input_shape)
        if loaded.weights.warning:
            console.warn(loaded.weights.warning)
        out.mkdir(parents=True, exist_ok=True)
        with console.stage("Export"):
            written = export_all(loaded.model, loaded.example_inputs, out, formats, stem=stem)
        files = [info.to_json() for info in written]
    document = {"model": model, "weights": loaded.weights.to_json(), "files": files}
    output.emit(document, lambda: "\n".join(_line(file) for file in files))


def _line(file: dict[str, Any]) -> str:
    error = file["rel_error"]
    checked = f"differs from PyTorch by {error:.1e} of the largest output" if error is not None else "not checked here"
    return f"{file['path']}: {amount(file['bytes'], 'B')}, {checked}" + "".join(f"\n  {note}" for note in file["notes"])
