"""``compress inspect --model M``: what could be removed, what it costs, and what is fixed and why."""

from __future__ import annotations

from typing import Any

import click

from compressor.cli.options import keep_option, model_or_folder, structure_options, trust_option
from compressor.cli.output import Output, output_options
from compressor.cli.structure import load_structure
from compressor.cli.tables import amount, table
from compressor.options import read
from compressor.search.constraints.wishes import LeastWidths

#: Kinds of choices whose sites patterns select.
_PATTERNED = ("pooling", "convolution", "activation")
_ROWS = 40


@click.command()
@model_or_folder
@trust_option
@structure_options
@click.option("--include", multiple=True, metavar="PATTERN", help="Compress matching modules only; may be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave matching modules alone; may be repeated.")
@keep_option
@click.option("--pooling", is_flag=True, help="Show where the network lowers its resolution, and where it could.")
@click.option("--all", "show_all", is_flag=True, help=f"Show every row, not the first {_ROWS} of each table.")
@output_options
def inspect(
    model: str,
    folder: str | None,
    trust_factories: tuple[str, ...],
    num_classes: int | None,
    input_shape: tuple[int, ...] | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    keep: tuple[str, ...],
    pooling: bool,
    show_all: bool,
    output: Output,
) -> None:
    """Show a model's groups, blocks and cost per layer, and what is fixed and why.

    A group is a set of channels that live or die together; a block is a residual branch that can be taken out.
    """
    least = read("--keep", LeastWidths(), keep)
    with output.working():
        from compressor.graph import capture
        from compressor.graph.choices import CHOICES, add_choices
        from compressor.search.inspection import describe

        loaded = load_structure(
            model, num_classes=num_classes, input_shape=input_shape, trust_factories=trust_factories, folder=folder
        )
        call = loaded.example
        graph = capture(loaded.model, call.args, example_kwargs=dict(call.kwargs), include=include, exclude=exclude)
        # Where to pool takes some traces more, so it is looked at when asked for.
        kinds = [kind for kind in CHOICES.names() if pooling or kind != "pooling"]
        patterns = {"include": include, "exclude": exclude}
        add_choices(loaded.model, graph, kinds, dict.fromkeys(_PATTERNED, patterns))
        if least:
            from compressor.search.constraints.wanted import wanted

            found = describe(graph, wanted(loaded.model, graph, least))
        else:
            found = describe(graph)
        found["input_shape"] = list(loaded.input_shape)
    output.emit(found, lambda: _render(found, None if show_all else _ROWS))


def _render(found: dict[str, Any], limit: int | None) -> str:
    shape = "x".join(str(size) for size in found["input_shape"])
    held = any("least" in group for group in found["groups"])
    head = (
        f"{found['model']} at {shape}: {amount(found['macs'], 'multiply-adds')}, "
        f"{amount(found['params'], 'parameters')}, "
        f"{amount(found['memory_bytes'], 'B')} peak activation memory at batch 1 (traced in {found['seconds']:.2f} s)"
    )
    parts = [
        head,
        table(
            f"{len(found['groups'])} groups of channels that live or die together",
            ("group", "channels", "units", *(("least",) * held), "layers"),
            [
                (g["name"], g["size"], g["units"], *((g["least"],) if held else ()), _few(g["layers"]))
                for g in found["groups"]
            ],
            limit=limit,
        ),
        table(
            f"{len(found['layers'])} layers with weights",
            ("layer", "operator", "in", "out", "multiply-adds", "parameters"),
            [
                (x["name"], x["op"], x["in_channels"], x["out_channels"], x["macs"], x["params"])
                for x in found["layers"]
            ],
            limit=limit,
        ),
    ]
    if found["choices"]:
        rows = [(c["name"], c["kind"], c["current"], _few(c["alternatives"])) for c in found["choices"]]
        title = f"{len(rows)} choices between alternatives"
        parts.append(table(title, ("site", "kind", "has", "alternatives"), rows, limit=limit))
    if found.get("no_choice"):
        kept = [(c["name"], c["reason"]) for c in found["no_choice"]]
        parts.append(table("Convolutions that keep their kernels, and why", ("layer", "reason"), kept, limit=limit))
    if "stages" in found:
        parts.append(_pooling(found["stages"]))
    if found["blocks"]:
        names = [block["name"] for block in found["blocks"]]
        parts.append(f"{len(names)} blocks that can be taken out: {_few(names, 12)}")
    if found["fixed"]:
        rows = [(f["place"], f["operator"], f["channels"], f["reason"]) for f in found["fixed"]]
        parts.append(table("What is fixed, and why", ("place", "operator", "channels", "reason"), rows, limit=limit))
    else:
        parts.append("Nothing is fixed but the model's inputs and outputs.")
    return "\n\n".join(parts)


def _pooling(stages: dict[str, Any]) -> str:
    """Where the network pools: layers by resolution, or why this cannot be chosen."""
    kept = [f"Stays: {line}" for line in stages["staying"]]
    if stages["reason"]:
        return "\n".join([f"Where it pools cannot be chosen: {stages['reason']}.", *kept])
    falls = {reduction["before"]: reduction for reduction in stages["reductions"]}
    level, rows = 0, []
    for name in stages["layers"]:
        level += name in falls
        by = ", ".join(falls[name]["modules"]) if name in falls else ""
        rows.append((name, "x".join(map(str, stages["sizes"][level])), by))
    default = stages["default"] or "none of these"
    title = f"{len(rows)} layers at {len(stages['sizes'])} resolutions: {stages['configurations']} configurations, "
    return "\n".join([table(f"{title}the network's is {default}", ("layer", "size", "reduced by"), rows), *kept])


def _few(names: list[str], count: int = 3) -> str:
    shown = ", ".join(names[:count])
    return f"{shown}, and {len(names) - count} more" if len(names) > count else shown
