"""Command lines drawn at random from what the commands themselves declare: valid, odd and invalid."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import click

from compressor.cli.app import COMMANDS, group

MODELS = [
    "job_networks:plain",
    "job_networks:fixed",
    "job_networks:raises",
    "job_networks:returns_a_number",
]
MODELS += [
    "job_networks:nope",
    "no_such_module:make",
    "resnet5O",
    "timm:",
    ":",
    "job_networks",
    "saved",
    "resnet20_cifar",
]
NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "0.05",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 40,
    "9" * 5000,
    "٣",
    "0x10",
]
NUMBERS += ["", " ", "1_000", "+1", "--", "True", "½", "1,5", str(2**63), str(2**70), "1e-400", "1%"]
ODD = [
    "",
    " ",
    "x",
    "-",
    "--",
    "none",
    "all",
    "é" * 20,
    "日本",
    "a\nb",
    "\t",
    "'; rm -rf x",
    "%s%d",
    "{}",
    "a" * 300,
    "*",
    "[",
    "[a",
]
ODD += [
    "\x1b[31m",
    "../..",
    "/dev/null/x",
    "~",
    "$HOME",
    "\ud800",
    "nul\0l",
    "🙂",
    ",",
    ",,",
    "a=",
    "=1",
    "*=50%",
    "first=4",
]
BUDGETS = ["50%", "80%", "100%", "1%", "2G", "500k", "12MiB", "3ms", "0%", "-5%", "2X", "%", "5e9999", "1e-9", "50 %"]
PATHS = [
    "missing",
    "empty",
    "text.txt",
    "nothing.csv",
    "broken.json",
    "saved",
    "saved/report.json",
    "missing/deep/x",
    ".",
]
BY_NAME = {
    "model": MODELS,
    "named": MODELS,
    "data": [
        "digits",
        "digit",
        "npz:missing.npz",
        "npz:text.txt",
        "cifar10:",
        "imagefolder:empty",
        "listops:n=x",
        "job:x",
    ],
    "weights": ["none", "none", "default", "missing.pt", "text.txt", "empty"],
    "search": ["oneshot", "figs", "dnarch", "oneshott", "FIGS"],
    "importance": ["l1", "l2", "random", "bn-scale", "taylor", "magnitude", "l3"],
    "learn": ["width", "width,depth", "colour", "width,width", ",", "none"],
    "compiler": ["eager", "nope"],
    "target": ["onnxruntime-cpu", "pytorch-cpu", "tensorrt", "nowhere", "cpu"],
    "include": ["first", "*", "nothing*", "[", "head"],
    "exclude": ["first", "*", "nothing*", "[", "middle"],
    "keep": ["first=4", "first=50%", "*=90%", "head=1", "first", "first=999", "nope=1", "first=0"],
    "export": ["onnx", "none", "onnx,onnx", "tflite", "onnx-int8", "torch"],
    "formats": ["onnx", "none", "onnx,onnx", "tflite", "onnx-int8"],
    "device": ["cpu", "auto", "cuda", "cuda:99", "tpu", "CPU"],
    "input_shape": ["1,8,8", "1x8x8", "3,8,8", "0,1", "1,99999999,99999999", "8", ",", "1,8,"],
    "pattern": ["resnet*", "nope*", "timm:nope*", "["],
}


class CommandLines:
    """Draws ``count`` of them, always the same."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = random.Random(seed)
        self.commands = dict(_commands())

    def lines(self, count: int) -> Iterator[list[str]]:
        names = list(self.commands)
        for _ in range(count):
            # The main job has most of the options.
            name = "" if self.draw.random() < 0.5 else self.draw.choice(names)
            yield self.line(name)

    def line(self, name: str) -> list[str]:
        draw, command = self.draw, self.commands[name]
        options = [p for p in command.params if isinstance(p, click.Option) and p.name not in {"version", "help"}]
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        parts = []
        chosen = draw.sample(options, k=min(len(options), draw.choice([0, 1, 1, 2, 2, 3, 4, 7])))
        chosen += [draw.choice(options)] * (draw.random() < 0.1)
        for option in [*(p for p in options if p.required and draw.random() < 0.9), *chosen]:
            parts.append(self.given(option))
        if name == "" and draw.random() < 0.8:
            parts.append(["--model", draw.choice(MODELS[:3] if draw.random() < 0.8 else MODELS)])
            parts.append([f"--budget-{draw.choice(['flops', 'params', 'memory'])}", draw.choice(BUDGETS)])
            parts += [["--weights", "none"], ["--input-shape", "1,8,8"]] * (draw.random() < 0.8)
        for argument in arguments:
            for _ in range(draw.choice([0, 1, 1, 1, 2]) if argument.nargs < 0 or draw.random() < 0.1 else 1):
                parts.append([self.value(argument)])
        draw.shuffle(parts)
        line = [*name.split(), *(word for part in parts for word in part)]
        fault = draw.random()
        if fault < 0.04 and line:
            line.pop(draw.randrange(len(line)))
        elif fault < 0.08:
            line.insert(
                draw.randrange(len(line) + 1), draw.choice([*ODD, "--no-such-option", "--help", "-q", "--debug"])
            )
        elif fault < 0.10:
            line.reverse()
        return [word for word in line if word not in {"--debug"}]

    def given(self, option: click.Option) -> list[str]:
        flag = self.draw.choice(option.opts)
        if option.is_flag:
            return [flag]
        value = self.value(option)
        return [f"{flag}={value}"] if flag.startswith("--") and self.draw.random() < 0.3 else [flag, value]

    def value(self, parameter: click.Parameter) -> str:
        draw, name = self.draw, parameter.name or ""
        if draw.random() < 0.12:
            return draw.choice(ODD)
        if isinstance(parameter.type, click.Choice):
            return draw.choice([*map(str, parameter.type.choices)] * 4 + ["json5"])
        if name in BY_NAME:
            return draw.choice(BY_NAME[name][: 1 if draw.random() < 0.4 else None])
        if name.startswith("budget"):
            return draw.choice(BUDGETS)
        if isinstance(parameter.type, click.Path) or name in {"out", "lut"}:
            return draw.choice(PATHS)
        return draw.choice(["1", "2", "4"] if draw.random() < 0.6 else NUMBERS)


def _commands() -> Iterator[tuple[str, click.Command]]:
    yield "", group
    for name in COMMANDS:
        command: click.Command = COMMANDS.get(name)
        if isinstance(command, click.Group):
            for part, inner in command.commands.items():
                yield f"{name} {part}", inner
        else:
            yield name, command


def lay_out(folder: Path) -> None:
    """The files that the command lines name."""
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("no table, no weights, no report\n")
    (folder / "nothing.csv").write_text("")
    (folder / "broken.json").write_text('{"model": ')
    (folder / "saved").mkdir()
    (folder / "saved" / "report.json").write_text('{"schema_version": 99}')
