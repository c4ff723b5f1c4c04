"""Recipes for tests, and the jobs that they and command lines amount to."""

from __future__ import annotations

from pathlib import Path

from compressor.cli.app import group
from compressor.cli.compress import given_options, job_config
from compressor.jobs.config import JobConfig
from compressor.jobs.recipes.read import read_recipe

TINY = "model: job_networks:plain\nweights: none\ndata: digits\nbudgets: {flops: 60%}\nexport: none\nbench_seconds: 0\n"


def job(text: str, *, name: str = "job.yaml", folder: Path) -> JobConfig:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_recipe(path).job()


def of_command_line(arguments: list[str]) -> JobConfig:
    context = group.make_context("compress", list(arguments))
    return job_config(context.params, given_options(context, context.params))
