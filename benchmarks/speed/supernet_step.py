"""What a step of a supernet costs beside a plain step of the largest network, and what learned boundaries add to it.

    python -m benchmarks.speed.supernet_step [--threads 1] [--batch 64] [--write benchmarks/speed/supernet_step.md]

Three kinds of step take turns: forward, loss, backward and SGD of the network as it is; the sandwich without policies
(the largest, the smallest and two random networks); and the same with both boundaries learned, whose step has the
gradients of policies and of their costs as well. Random networks are the same in both. Times are processor times.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.costs import build
from compressor.data import from_loaders
from compressor.graph import capture
from compressor.models import load_model
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.supernet.config import SupernetConfig
from compressor.search.methods.supernet.dimensions import find_dimensions
from compressor.search.methods.supernet.learner import SupernetLearner
from compressor.search.methods.supernet.space import Space
from compressor.search.training.subnets import Subnets

CASES = {
    "resnet20_cifar": (3, 32, 32),
    "mobilenet_v2_space": (3, 32, 32),
    "resnet18": (3, 64, 64),
    "mobilenet_v2": (3, 64, 64),
}


def gradients(learner: SupernetLearner, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """All passes and backwards of one step."""
    outputs = learner.forward(model, x)
    loss = nn.functional.cross_entropy(outputs, y)
    penalty = learner.penalty()
    (loss if penalty is None else loss + penalty).backward()
    for further in learner.further():
        further(x, outputs.detach()).backward()


def measure(name: str, shape: tuple[int, ...], batch: int, turns: int) -> dict[str, Any]:
    """Median seconds of the three kinds of step, and the medians of ratios of those that follow each other."""
    torch.manual_seed(0)
    model = load_model(name, weights="none", example_shape=shape, num_classes=10, seed=0).model
    graph = capture(model.eval(), torch.randn(1, *shape), kernels=True)
    model.train()
    flops = build("flops", graph)
    x, y = torch.randn(batch, *shape), torch.arange(batch) % 10
    loader = DataLoader(TensorDataset(x, y), batch_size=batch)
    data = from_loaders(loader, loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in model.parameters()})
    learners = {}
    for boundaries in ("none", "both"):
        config = SupernetConfig(boundaries=boundaries)
        projector = Projector(graph, [Constraint(flops, 0.75 * flops.original)], decides=config.decides)
        scores = np.random.default_rng(0).random(graph.n_units)
        space = Space(projector, find_dimensions(model, projector, config, scores))
        learners[boundaries] = SupernetLearner(
            Subnets(model, graph),
            space,
            config,
            data,
            lowest={"flops": 0.25},
            steps=turns,
            seed=0,
            select=lambda learner, history: None,  # type: ignore[arg-type,return-value]
        )

    def plain() -> None:
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    def sandwich(learner: SupernetLearner, step: int) -> None:
        learner.before_step(step, turns)
        gradients(learner, model, x, y)
        optimizer.step()
        optimizer.zero_grad()
        for own in learner.optimizers().values():
            own.step()
            own.zero_grad()

    took: dict[str, list[float]] = {"plain": [], "none": [], "both": []}
    for step in range(-2, turns):
        for kind in ("plain", "none", "both") if step % 2 else ("both", "none", "plain"):
            torch.manual_seed(1000 + step)
            started = time.process_time()
            if kind == "plain":
                plain()
            else:
                sandwich(learners[kind], step)
            if step >= 0:
                took[kind].append(time.process_time() - started)
    ratio = [both / own for both, own in zip(took["both"], took["plain"], strict=True)]
    sums = [took[kind] for kind in ("both", "none")]
    return {
        "model": name,
        "size": f"{shape[1]}x{shape[2]}",
        "dimensions": len(learners["both"].space),
        **{kind: statistics.median(each) for kind, each in took.items()},
        "ratio": statistics.median(ratio),
        "policies": statistics.median(sums[0]) / statistics.median(sums[1]) - 1,
    }


def overhead(name: str, shape: tuple[int, ...], batch: int, turns: int) -> float:
    """What policies add to a step of the very same networks: drawing, relaxed masks and their gradients, costs."""
    torch.manual_seed(0)
    model = load_model(name, weights="none", example_shape=shape, num_classes=10, seed=0).model
    graph = capture(model.eval(), torch.randn(1, *shape), kernels=True)
    model.train()
    flops = build("flops", graph)
    config = SupernetConfig()
    projector = Projector(graph, [Constraint(flops, 0.75 * flops.original)], decides=config.decides)
    space = Space(projector, find_dimensions(model, projector, config, np.random.default_rng(0).random(graph.n_units)))
    x, y = torch.randn(batch, *shape), torch.arange(batch) % 10
    loader = DataLoader(TensorDataset(x, y), batch_size=batch)
    learner = SupernetLearner(
        Subnets(model, graph),
        space,
        config,
        from_loaders(loader, loader),
        lowest={"flops": 0.25},
        steps=turns,
        seed=0,
        select=lambda learner, history: None,  # type: ignore[arg-type,return-value]
    )

    def step(learned: bool) -> float:
        learner.before_step(0, turns)
        if not learned:  # the same networks, without gradients to the policies
            drawn = {name: (None, learner._draw(name)[1]) for name in learner._drawn}
            learner._draw = drawn.__getitem__  # type: ignore[method-assign,assignment]
        started = time.process_time()
        gradients(learner, model, x, y)
        model.zero_grad()
        vars(learner).pop("_draw", None)
        if learned:
            for own in learner.optimizers().values():
                own.step()
                own.zero_grad()
        return time.process_time() - started

    ratios = []
    for turn in range(-1, turns):
        found = {}
        for learned in (True, False) if turn % 2 else (False, True):
            torch.manual_seed(turn + 10)
            found[learned] = step(learned)
        if turn >= 0:
            ratios.append(found[True] / found[False])
    return statistics.median(ratios) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lines = [
        "| model | input | dimensions | plain step, s | sandwich, s | with boundaries, s | with boundaries / plain | "
        "policies, of a step of the same networks |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in given.only.split(","):
        row = measure(name, CASES[name], given.batch, given.turns)
        more = overhead(name, CASES[name], given.batch, given.turns)
        lines.append(
            f"| {row['model']} | {row['size']} | {row['dimensions']} | {row['plain']:.3f} | {row['none']:.3f} | "
            f"{row['both']:.3f} | {row['ratio']:.2f} | {100 * more:+.1f} % |"
        )
        print(lines[-1], flush=True)
    if given.write:
        machine = f"{platform.system()} {platform.machine()}, {given.threads} threads, torch {torch.__version__}"
        given.write.write_text(
            "# A step of a supernet\n\nMade by `python -m benchmarks.speed.supernet_step --threads "
            f"{given.threads} --batch {given.batch} --turns {given.turns} --write benchmarks/speed/supernet_step.md`; "
            f"medians of {given.turns} steps in turn, processor times. Machine: {machine}.\n\n"
            + "\n".join(lines)
            + "\n"
        )


if __name__ == "__main__":
    main()
