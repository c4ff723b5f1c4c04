"""Time per training step against the multiply-adds of the network a DNArch search holds at that step.

    python -m benchmarks.speed.dnarch_step [--model resnet20_cifar] [--batch 64] [--repeats 7] [--write FILE]

At each size all masks over widths, depth and kernels stand where that share of the multiply-adds is left. A step is
forward, loss and backward, on images with their channels last, as the program's training lays them out. Three
ways are timed in turn, so that drift of the machine meets all alike: *plain*, the base network without any search;
*live*, computing only what the masks keep; *masked*, computing everything.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compressor.costs import build
from compressor.graph import capture
from compressor.models import load_model
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.train.layout import channels_last

SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--learn", default="width,depth,kernel", help="what the masks are over")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    loaded = load_model(arguments.model, weights="none")
    model = loaded.model.to(arguments.device).train()
    example = loaded.example_inputs.to(arguments.device)
    learn = tuple(arguments.learn.split(","))
    graph = capture(model, example, kernels="kernel" in learn, resolution="resolution" in learn)
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, term.original)])
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    session = DnarchLearner(model, projector, DnarchConfig(learn=learn, width_tau=50.0, depth_tau=16.0), scores)
    inputs = channels_last(torch.randn(arguments.batch, *example.shape[1:], device=arguments.device))
    targets = torch.zeros(arguments.batch, dtype=torch.int64, device=arguments.device)

    def masked() -> Tensor:
        units, gates = (mask.float() for mask in session.masks())
        with session.masked(units, gates):
            output: Tensor = model(inputs)
        return output

    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: model(inputs),
        "live": lambda: session.forward(model, inputs),
        "masked": masked,
    }
    lines = [
        f"{arguments.model}, {arguments.learn}, batch {arguments.batch}, {arguments.device}, "
        f"{torch.get_num_threads()} thread of a busy {platform.machine()} machine, torch {torch.__version__}; "
        f"medians of {arguments.repeats} steps each, in turn.",
        "",
        "| multiply-adds | plain network | live | everything masked | live / plain |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    print("\n".join(lines))
    for share in SHARES:
        shrink(session, share)
        times = interleaved(ways, session, model, targets, arguments.repeats)
        lines.append(
            f"| {cost(session):.0%} | {times['plain']:.0f} ms | {times['live']:.0f} ms | {times['masked']:.0f} ms "
            f"| {times['live'] / times['plain']:.2f} |"
        )
        print(lines[-1], flush=True)
    if arguments.write is not None:
        text = "\n".join(lines)
        arguments.write.write_text(
            f"# Time per step of a DNArch search\n\n`python -m benchmarks.speed.dnarch_step`\n\n{text}\n"
        )


def cost(session: DnarchLearner) -> float:
    """Multiply-adds of what the masks keep, as a share of all."""
    units, gates = (mask.detach().gt(0).cpu().numpy() for mask in session.masks())
    constraint = session.projector.constraints[0]
    return float(session.projector.costs(units, gates)[0] / constraint.term.original)


@torch.no_grad()
def shift(session: DnarchLearner, by: float) -> None:
    """Move all masks from their largest extent by the same."""
    for rows in session.rows:
        rows.offsets.fill_(1e9)
        rows.clamp_()
        # Kernels of one size would all be cropped at once: they go one after the other.
        pace = torch.linspace(0.1, 1, len(rows)).to(rows.offsets) if rows is session.kernel else 1.0
        rows.offsets.add_(rows.pace * by * pace)
        rows.clamp_()


def shrink(session: DnarchLearner, share: float) -> None:
    """Move all masks alike until at most that share of the multiply-adds is left."""
    low, high = -2.5, 0.0
    for _ in range(30):
        middle = (low + high) / 2
        shift(session, middle)
        low, high = (middle, high) if cost(session) <= share else (low, middle)
    shift(session, low)


def interleaved(
    ways: dict[str, Callable[[], Tensor]], session: DnarchLearner, model: nn.Module, targets: Tensor, repeats: int
) -> dict[str, float]:
    """Median milliseconds of a step, each way in turn, after one round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    clock = time.perf_counter if targets.device.type == "cuda" else time.process_time
    for repeat in range(repeats + 1):
        for name, forward in ways.items():
            for parameter in (*model.parameters(), *(rows.offsets for rows in session.rows)):
                parameter.grad = None
            synchronise(targets)
            started = clock()
            nn.functional.cross_entropy(forward(), targets).backward()  # type: ignore[no-untyped-call]
            synchronise(targets)
            if repeat:
                found[name].append(1000 * (clock() - started))
    return {name: statistics.median(values) for name, values in found.items()}


def synchronise(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
