"""Recipes: read by the declarations of the options, refused by key and line, written so that they give the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.jobs.recipes.keys import job_keys, method_keys
from compressor.jobs.recipes.read import read_recipe, recipe_of
from compressor.jobs.recipes.write import recipe_text, recipe_values, write_recipe
from compressor.search import METHODS, get_method
from compressor.storage.yaml_text import dump_yaml, parse_yaml
from tests.jobs.recipe_texts import TINY, job, of_command_line


def test_a_recipe_is_what_the_command_line_is(tmp_path: Path) -> None:
    text = """
        # keys are the options with underscores
        model: resnet20_cifar
        data: digits
        weights: none
        budgets: {flops: 50%, params: 2e5, memory: 12KiB}
        search: dash,figs
        search_epochs: 2
        finetune_epochs: 3
        lr: 1e-2
        tune: {lr: [0.1, 0.01], weight_decay: 0}
        include: [conv*, layer1*]
        exclude: head
        keep: {layer4*: 50%, conv1: 16}
        export: [onnx, torch-export]
        input_shape: [1, 8, 8]
        batch_size: 1_00
        dash: {kernel_sizes: [3, 5]}
        figs.tau: 0.02
        figs: {live: no}
        seed: 07
    """
    line = "--model resnet20_cifar --data digits --weights none --budget-flops 50% --budget-params 2e5"
    line += (
        " --budget-memory 12KiB --search dash,figs --search-epochs 2 --finetune-epochs 3 --lr 0.01 --tune.lr 0.1,0.01"
    )
    line += " --tune.weight-decay 0 --include conv* --include layer1* --exclude head --keep layer4*=50% --keep conv1=16"
    line += " --export onnx,torch-export --input-shape 1,8,8 --batch-size 100 --dash.kernel-sizes 3,5 --figs.tau 0.02"
    line += " --figs.live False --seed 7"
    unindented = re.sub(r"^ {8}", "", text, flags=re.M)
    assert job(unindented, folder=tmp_path) == of_command_line(line.split())


def test_json_is_read_with_its_own_types(tmp_path: Path) -> None:
    document = {"model": "resnet18", "budgets": {"flops": 2e9, "params": "50%"}, "lr": 0.1, "export": []}
    document |= {"oneshot": {"depth": False, "rounds": 4}, "threads": None, "include": ["a", "b"]}
    found = job(json.dumps(document, indent="\t"), name="job.json", folder=tmp_path)
    line = "--model resnet18 --budget-flops 2000000000 --budget-params 50% --lr 0.1 --export none --oneshot.depth False"
    line += " --oneshot.rounds 4 --include a --include b"
    assert found == of_command_line(line.split())


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "model: resnet18\ndata: digits\nbudgets: {flops: 50%, params: 40%}\nsearch: dnarch\n"
        "dnarch: {lr: 0.5, every: 3}\n"
        "finetune_epochs: 4\ntune: {lr: [0.1], momentum: [0.5]}\nexport: [onnx]\nseed: 5\nforce: true\n"
    )
    told = of_command_line(["--config", str(path), "--budget-flops", "30%", "--dnarch.every", "2", "--tune.lr", "0.3"])
    assert {each.cost: each.text for each in told.budgets} == {"flops": "30%", "params": "40%"}
    assert told.options == {"lr": 0.5, "every": 2}
    assert told.tune == {"lr": (0.3,), "momentum": (0.5,)}
    assert (told.seed, told.force, told.finetune_epochs) == (5, True, 4)
    # A default that stands on the command line is said, too.
    told = of_command_line(["--config", str(path), "--seed", "0", "--export", "none", "--tune", "none"])
    assert (told.seed, told.export, told.tune) == (0, (), "none")
    # Options of the search in the recipe go with it.
    told = of_command_line(["--config", str(path), "--search", "figs", "--figs.tau", "0.5"])
    assert (told.search, told.options) == ("figs", {"tau": 0.5})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("- a", "keys with values"),
        ("just words", "keys with values"),
        ("modle: x", r"line 1: .*'modle'.* Did you mean model"),
        ("a: 1\nmodel: x", r"line 1: there is no key 'a'"),
        ("model: x\nfinetune-epochs: 2", "line 2.*Did you mean finetune_epochs[?]"),
        ("budget_flops: 50%", "budgets: {flops: 50%}"),
        ("budgets: 50%", "must be a mapping, such as budgets: {flops: 50%}"),
        ("budgets: {flop: 50%}", "Did you mean flops"),
        ("budgets: {flops: [20%, 50%]}", "compress sweep"),
        ("budgets: {flops: 0.5}", "less than one"),
        ("budgets:\n  flops: 50%\n  params: 1_000", "line 3: .*1_000"),
        ("budgets: {flops: 50%}\nbudgets.flops: 40%", "twice"),
        ("budgets.flops: 40%\nbudgets: {flops: 50%}", "twice"),
        ("budgets: {flops: ~}", "line 1: A flops budget must be text"),
        ("lr: fast", "line 1: lr must be a number above zero, not 'fast'"),
        ("lr:", "line 1: lr has no value"),
        ("lr: [0.1]", "lr must be a number"),
        ("lr: {a: 1}", "lr must be a number"),
        ("batch_size: 64.0", "batch_size must be a whole number"),
        ("batch_size: 0x40", "batch_size must be a whole number"),
        ("finetune_epochs: 1:30", "finetune_epochs must be a whole number"),
        ("model: [resnet18]", "model must be a text"),
        ("search: fgs", "line 1: Unknown search method 'fgs'. Did you mean figs"),
        ("search: figs,figs", "twice"),
        ("importance: l3", "Unknown importance 'l3'"),
        ("export: [onx]", "Did you mean onnx"),
        ("tune: shrt", "Did you mean short"),
        ("tune: {warmup: 1}", "line 1: tune has no 'warmup'"),
        ("tune.lr: -1", "tune.lr must be"),
        ("keep: {conv1: 0}", "keep must be"),
        ("force: maybe", "force must be True or False"),
        ("figs: 3", "figs must be a mapping"),
        ("figs:\n  lr: 1\n  taus: 2", "line 3: figs has no option taus. Did you mean tau"),
        ("figs.lr: much", "line 1: figs.lr must be a number"),
        ("figs: {lr: 1}\nfigs.lr: 2", "line 2: figs.lr is said twice"),
        ("kernel_sizes: [3]", "option of dash"),
        ("seeds: [1, 2]", "compress sweep"),
        ("options: {lr: 1}", "no key 'options'"),
        ("schema_version: 2", "schema version '2'"),
        ("model: a\nmodel: b", "line 2: the key 'model' stands in line 1 already"),
        ("model: !!python/object/apply:os.system [echo]", "line 1: tags"),
        ("model: !!str x", "line 1: tags"),
        ("a: &a [1]\nb: *a", "line 1: anchors and aliases"),
        ("<<: {model: a}", "no key '<<'"),
        ("include: [*.conv1]", "in quotes"),
        ("model: %x", "line 1: .*in quotes"),
        ("model: a: b", "line 1: .*in quotes"),
        ("model: a\n\tlr: 1", "line 2"),
        ("model: 'a", "line 1"),
        ("---\nmodel: a\n---\nmodel: b", "line 3: a second document"),
        ("? [a]\n: b", "a key must be a text"),
        ("figs: " + "[" * 100_000, "nested more than"),
        ("figs: " + "{a: " * 9, "nested more than"),
        ("include: [" + "a, " * 30_000 + "]", "more than 20000 values"),
        ("#" * 300_000, "more than"),
        ("model: \0", "cannot stand there"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_cure(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        job(text, folder=tmp_path)
    assert str(tmp_path / "job.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("job.json", '{"model": "a", "model": "b"}', "stands there twice"),
        ("job.json", '{"model": 3}', "model must be a text"),
        ("job.json", '{"budgets": {"flops": true}}', "must be text or a number"),
        ("job.json", '{"lr": NaN}', "NaN"),
        ("job.json", "[" * 10_000, "cannot be read as JSON"),
        ("job.json", "model: a", "cannot be read as JSON"),
        ("job.toml", "model = 3", "no recipe by its name"),
        ("job", "model: a", "no recipe by its name"),
    ],
)
def test_other_files(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        job(text, name=name, folder=tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: a\nout: \xe4")
    for name, said in (
        ("pipe.yaml", "a pipe"),
        ("missing.yaml", "no file"),
        (".", "no recipe.yaml"),
        ("latin.yaml", "line 2: it is no text in UTF-8"),
    ):
        with pytest.raises(UsageError, match=said):
            read_recipe(tmp_path / name)


def test_words_that_yaml_takes_for_something_else_are_what_stands_there(tmp_path: Path) -> None:
    told = job(
        "model: on\nweights: no\nbudgets: {flops: 1e9}\ninclude: [yes, 1.0, 2020-01-01, 010, .5]", folder=tmp_path
    )
    assert (told.model, told.weights) == ("on", "no")
    assert told.include == ("yes", "1.0", "2020-01-01", "010", ".5")
    assert told.budgets[0].value == 1e9


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*job_keys(), "budgets", "schema_version", *METHODS, "figs.lr", "tune.lr", "nothing"]


def refusal(attempt: Callable[[], object]) -> str:
    """What an attempt is refused with, if it is."""
    try:
        attempt()
    except ValueError as error:  # UsageError is one
        return str(error)
    return ""


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5))
def test_anything_is_read_or_refused_in_a_line(document: dict[str, Any]) -> None:
    said = refusal(lambda: recipe_of(document).job())
    assert "\n" not in said


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_yaml_or_a_mistake(data: bytes) -> None:
    assert "\n" not in refusal(lambda: parse_yaml(data))


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20) | st.lists(st.text(max_size=8)), max_size=4)
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read_again(values: dict[str, Any]) -> None:
    written = dump_yaml(values)
    assert (parse_yaml(written.encode()).value or {}) == values
    assert (yaml.safe_load(written) or {}) == values  # other readers see the same


@pytest.mark.parametrize("search", [*METHODS, "dash,figs", "pooling,oneshot"])
def test_a_job_comes_back_from_its_recipe(tmp_path: Path, search: str) -> None:
    text = f"model: resnet20_cifar\ndata: digits\nbudgets: {{flops: 1.5G, latency: 4ms}}\nsearch: '{search}'\n"
    text += "target: onnxruntime-cpu\nkeep: {'*': 8}\nlr: 1e-7\ninput_shape: 1x8x8\nseed: 9223372036854775807\n"
    before = job(text, folder=tmp_path)
    (tmp_path / "again.yaml").write_text(recipe_text(before), encoding="utf-8")
    after = read_recipe(tmp_path / "again.yaml").job()
    assert after.identity() == before.identity()
    assert recipe_values(after) == recipe_values(before)
    for method in search.split(","):  # nothing is left to the defaults of another version
        own = recipe_values(before)[method]
        for name, key in method_keys(get_method(method)).items():
            assert name in own or key.default is None or name in ("epochs", "batch_size")
    (tmp_path / "again.json").write_text(json.dumps(recipe_values(before)), encoding="utf-8")
    assert read_recipe(tmp_path / "again.json").job() == after


def test_a_recipe_of_the_user_keeps_its_notes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"# mine\n{TINY}")
    told = read_recipe(path).job()
    write_recipe(path, told)
    assert path.read_text().startswith("# mine")
    write_recipe(path, read_recipe(path).over(recipe_of({})).job())
    other = recipe_of({**recipe_values(told), "seed": 4}).job()
    write_recipe(path, other)
    assert read_recipe(path).job().seed == 4
