"""``compress export --model M --to onnx``: write a model in a deployment format, checked against PyTorch."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import click

from compressor.cli.options import Of, OpenAxes, model_or_folder, structure_options, trust_option
from compressor.cli.output import Output, output_options
from compressor.cli.structure import load_structure
from compressor.cli.tables import amount
from compressor.errors import UsageError
from compressor.options import Names
from compressor.options.shared import OPSET
from exporters.registry import INT8_FORMAT


@click.command()
@model_or_folder
@trust_option
@click.option(
    "--weights", default="default", metavar="W", help="default, none or a file, as for the main job. [default]"
)
@structure_options
@click.option("--to", "formats", type=Of(Names()), default=("onnx",), metavar="F,...", help="Formats to write. [onnx]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    help="fp16 for OpenVINO and TensorRT, int8 for ONNX and TensorRT (with --data). [fp32]",
)
@click.option("--opset", type=Of(OPSET), metavar="N", help="The ONNX operator set, such as 17. [newest]")
@click.option(
    "--dynamic-axes",
    type=OpenAxes(),
    default="auto",
    metavar="A",
    help="Axes to leave open besides the batch, as INPUT:AXIS=NAME,... (input:2=length); auto: the positions of "
    "sequences, where the model lets them; or none. [auto]",
)
@click.option("--data", metavar="D", help="What int8 takes its ranges from, and is evaluated on.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Folder to write to. [.]")
@click.option("--force", is_flag=True, help="Overwrite files.")
@output_options
def export(
    model: str,
    folder: str | None,
    trust_factories: tuple[str, ...],
    weights: str,
    num_classes: int | None,
    input_shape: tuple[int, ...] | None,
    formats: tuple[str, ...],
    precision: str,
    opset: int | None,
    dynamic_axes: Any,
    data: str | None,
    out: Path,
    force: bool,
    output: Output,
) -> None:
    """Write a model, or a saved folder's model, for the runtime it is to run in.

    A saved FOLDER needs no --model, unless its original is of a factory of yours: that is named then.
    """
    if not formats:
        raise UsageError("No format was given; pass at least one, for example --to onnx.")
    formats = with_precision(formats, precision)
    if data is None and (precision == "int8" or INT8_FORMAT in formats):
        raise UsageError("Int8 takes its ranges from data: pass --data, for example --data digits.")
    with output.working():
        from compressor.deploy import int8
        from compressor.deploy.exports import export_all
        from compressor.storage.codec import encode
        from compressor.storage.files import made_folder
        from exporters import registry

        named = model if folder is None else folder
        stem = re.sub(r"[^\w.-]+", "-", Path(named).name if Path(named).is_dir() else named)
        for path in [out / f"{stem}{registry.get(name).suffix}" for name in formats]:
            if path.exists() and not force:
                raise UsageError(f"'{path}' exists; pass --force to overwrite it, or another --out.")
        events = output.events()
        loaded = load_structure(
            model,
            weights=weights,
            num_classes=num_classes,
            input_shape=input_shape,
            trust_factories=trust_factories,
            folder=folder,
        )
        if loaded.weights.warning:
            events.warn(loaded.weights.warning)
        options: dict[str, Any] = {"precision": precision, "opset_version": opset, "dynamic_axes": dynamic_axes}
        split = None
        if data is not None:
            from compressor.data import load_data

            split = load_data(data)
            options["calibration"] = int8.calibration_inputs(split)
        with events.stage("Export"), made_folder(out):
            written = export_all(loaded.model, loaded.example_inputs, out, formats, stem=stem, **options)
        files = [info.to_json() for info in written]
        quantised = next((info for info in written if info.format == INT8_FORMAT), None)
        found = None
        if quantised is not None:
            with events.stage("Evaluate"), tempfile.TemporaryDirectory() as scratch:
                (single,) = export_all(loaded.model, loaded.example_inputs, scratch, ["onnx"], check=False)
                found = encode(int8.describe(single.path, quantised, split, threads=None, seconds=5.0))
    document = {"model": model, "weights": loaded.weights.to_json(), "files": files, "int8": found}
    output.emit(document, lambda: "\n".join([*(_line(file) for file in files), *_int8(found)]))


def with_precision(formats: tuple[str, ...], precision: str) -> tuple[str, ...]:
    """The formats that ``precision`` means. Raises ``UsageError`` for one that cannot be had in it."""
    known = {
        "fp16": ("openvino", "tensorrt", "tensorrt-rtx"),
        "int8": ("onnx", INT8_FORMAT, "tensorrt", "tensorrt-rtx"),
    }
    for name in formats:
        if precision in known and name not in known[precision]:
            raise UsageError(f"{name} cannot be written in {precision}; {', '.join(known[precision])} can.")
    return tuple(INT8_FORMAT if name == "onnx" and precision == "int8" else name for name in formats)


def _int8(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = []
    if found["before"] is not None and found["after"] is not None:
        form = ".4g" if found["lower_is_better"] else ".2%"
        before, after = (format(found[key], form) for key in ("before", "after"))
        lines.append(f"{found['metric']} ({found['split']}): {before} in fp32, {after} in int8")
    if found["latency"] is not None:
        single, quantised = (found["latency"][key]["median_ms"] for key in ("original", "compressed"))
        lines.append(f"latency ({found['latency']['target']}): {single:.3g} ms in fp32, {quantised:.3g} ms in int8")
    return lines


def _line(file: dict[str, Any]) -> str:
    error = file["rel_error"]
    checked = f"differs from PyTorch by {error:.1e} of the largest output" if error is not None else "not checked here"
    return f"{file['path']}: {amount(file['bytes'], 'B')}, {checked}" + "".join(f"\n  {note}" for note in file["notes"])
