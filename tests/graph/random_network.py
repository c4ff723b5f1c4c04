"""Random small networks out of many operators, from a list of ``(operator, a, b)`` that prints and replays."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tests.graph.random_operators import OPERATORS

Program = list[tuple[str, int, int]]


class RandomNetwork(nn.Module):
    """Runs a program on an image (1, 3, SIZE, SIZE) and ends in 5 numbers."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.steps = nn.ModuleList()
        self.runs: list[Callable[..., Tensor]] = []
        self.alike: list[list[int]] = []  # per step, what was computed before with as many channels
        widths = [8]
        for name, a, b in program:
            layers, run, width = OPERATORS[name](widths[-1], a, b)
            self.alike.append([i for i, n in enumerate(widths[:-1]) if n == widths[-1]])
            self.steps.append(nn.ModuleList(layers))
            self.runs.append(run)
            widths.append(width)
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        earlier = [x]
        for step, run, alike in zip(self.steps, self.runs, self.alike, strict=True):
            x = run(step, x, [earlier[i] for i in alike])
            earlier.append(x)
        return self.head(x.mean((2, 3)))
