"""``compress bench A B ...``: time networks in turn on one target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from compressor.cli.options import Of, trust_option
from compressor.cli.output import Output, output_options
from compressor.cli.structure import load_structure
from compressor.errors import UsageError
from compressor.options import Shape
from compressor.options.shared import BATCH_SIZE, SECONDS, THREADS

if TYPE_CHECKING:
    from torch import nn


@click.command()
@click.argument("named", nargs=-1, metavar="[MODEL]...")
@click.option("--model", "more", multiple=True, metavar="M", help="The same as an argument; may be repeated.")
@click.option("--input-shape", type=Of(Shape()), metavar="C,H,W", help="Shape of one input, if not the models' own.")
@click.option("--target", default="onnxruntime-cpu", metavar="T", help="Where to time. [onnxruntime-cpu]")
@click.option("--batch", type=Of(BATCH_SIZE), default=1, metavar="N", help="Batch size. [1]")
@click.option("--threads", type=Of(THREADS), metavar="N", help="CPU threads. [all cores]")
@click.option("--seconds", type=Of(SECONDS), default=10.0, metavar="S", help="Time to take. [10]")
@trust_option
@output_options
def bench(
    named: tuple[str, ...],
    more: tuple[str, ...],
    input_shape: tuple[int, ...] | None,
    target: str,
    batch: int,
    threads: int | None,
    seconds: float,
    trust_factories: tuple[str, ...],
    output: Output,
) -> None:
    """Time models against each other, in turn so that drift of the machine hits all alike.

    A MODEL is a name (its weights are random), a saved folder or an exported file; the first is the baseline.
    """
    names = (*named, *more)
    if not names:
        raise UsageError("There is nothing to time; name at least one model, for example: compress bench resnet18.")
    if len(set(names)) < len(names):
        raise UsageError("The same model was given twice; each must differ from the others.")
    with output.working():
        import torch

        from compressor.deploy import timing as benching

        models: dict[str, nn.Module | str | Path] = {name: name for name in names}
        inputs = None
        if input_shape is not None:
            inputs = torch.randn(1, *input_shape)
            for name in names:
                if not Path(name).exists():
                    models[name] = load_structure(name, input_shape=input_shape).model
        with output.events().stage(f"Time on {target}"):
            found = benching.bench(
                models,
                inputs,
                target=target,
                batch=batch,
                threads=threads,
                seconds=seconds,
                trust_factories=trust_factories,
            )
    output.emit({"target": target, **found.to_json()}, lambda: benching.table(found))
