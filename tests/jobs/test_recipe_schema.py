"""The published schema of recipes holds for what is written and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from compressor.cli import main
from compressor.jobs.recipes.read import read_recipe
from compressor.jobs.recipes.schema import recipe_schema
from compressor.jobs.recipes.write import recipe_values
from compressor.search import METHODS
from tests.jobs.recipe_texts import TINY, job

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_schema_is_published_and_holds_for_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    published = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert published == schema, "run: compress config schema > docs/recipe.schema.json"
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema
    check = jsonschema.Draft202012Validator(schema)
    for search in (*METHODS, "dash,figs"):
        told = job(f"{TINY}search: '{search}'\ntune: {{lr: [0.1]}}\nkeep: {{a: 1}}", folder=tmp_path)
        check.validate(recipe_values(told))
    for wrong in ({"modle": 1}, {"lr": -1}, {"figs": {"taus": 1}}, {"budgets": {"watts": 3}}, {"figs.lr": "x"}):
        assert not check.is_valid(wrong), wrong
    sweep = jsonschema.Draft202012Validator(recipe_schema(sweep=True))
    sweep.validate({"model": "a", "budgets": {"flops": ["25%", "50%"]}, "seeds": [0, 1], "zip": True})
    assert not check.is_valid({"budgets": {"flops": ["25%", "50%"]}})


def documents() -> list[Any]:
    """Every recipe that the documents show, and the example."""
    found = [((ROOT / "examples" / "recipe.yaml").read_text(encoding="utf-8"), False)]
    for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), re.DOTALL):
        found.append((text, "compress sweep" in text))
    return found


@pytest.mark.parametrize(("text", "sweep"), documents())
def test_recipes_that_are_shown_are_read(tmp_path: Path, text: str, sweep: bool) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    asked = read_recipe(path, sweep=sweep)
    jsonschema.Draft202012Validator(recipe_schema(sweep=sweep)).validate(yaml.safe_load(text))
    if not sweep:
        asked.job()
