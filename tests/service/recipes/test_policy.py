"""What a recipe may say to a service: what leads to a file, a host or foreign code is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compressor.jobs.recipes.keys import job_keys, method_keys, sweep_keys
from compressor.jobs.recipes.read import RecipeError, recipe_of
from compressor.options import Names, Place, Text
from compressor.search import usable_methods
from compressor.service.recipes import Policy, Written, read_body, replaced, submission_of
from compressor.service.recipes.policy import SOURCES, _Checker, _is_harmless

POLICY = Policy(("cifar",), ("onnxruntime-cpu", "jetson-1"), ("resnet18", "resnet20_cifar"))
ID = "0197b2c3d4e5f60718a9"
GOOD: dict[str, Any] = {"model": "resnet18", "budgets": {"flops": "50%"}}
PATHS = (
    "/etc/passwd",
    "../../secret",
    "./here",
    "data/x.npz",
    "C:\\windows\\x",
    "/dev/zero",
    "/proc/self/environ",
    "file:///etc/passwd",
    "s3://bucket/x",
    "https://example.org/x",
    "~/x",
    "$HOME/x",
    "upload:../x",
    "upload:",
    "upload:UPPER",
    "job:../x",
    "\\\\host\\share",
    "npz:/data/x.npz",
    "npz:x",
    "imagefolder:/home",
    "hf:/etc",
    "hf:..",
    "coco:x",
    "cifar10:cifar",
    "digits:/etc",
    "listops:/etc",
    "a\nb",
    "a b",
    " resnet18",
)


def check(values: dict[str, Any], **more: Any) -> Any:
    return submission_of(read_body(json.dumps(values).encode(), "application/json"), POLICY, **more)


def refused(values: dict[str, Any]) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        check(values)
    return caught.value


def test_a_plain_job_goes_through() -> None:
    found = check({**GOOD, "data": "digits", "figs": {"lr": 0.02}, "export": "onnx,torch-export", "device": "cpu"})
    assert found.kind == "compress"
    assert found.recipe["data"] == "digits"
    assert found.recipe["figs"] == {"lr": 0.02}
    assert found.labels == set()
    assert found.uploads == []
    assert recipe_of(found.recipe).job().search == "figs"  # what is stored is a recipe


@pytest.mark.parametrize("key", ["model", "weights", "data", "start", "target", "device"])
@pytest.mark.parametrize("value", PATHS)
def test_no_key_takes_a_place(key: str, value: str) -> None:
    if key == "model" and value in ("npz:x", "coco:x", "cifar10:cifar"):
        pytest.skip("a factory by its form, for workers that take code")
    error = refused({**GOOD, key: value})
    assert error.key == key
    assert error.line == 1
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("out", "/tmp/x"),
        ("out", "x"),
        ("force", True),
        ("lut", "/tmp/lut.sqlite"),
        ("lut", "x"),
        ("track", ["wandb"]),
        ("track", "tensorboard"),
        ("trust_factories", ["os"]),
        ("trust_factories", "os,sys"),
        ("device", "cuda:1"),
        ("device", "mps"),
        ("device", "cuda:999999999999999999999"),
    ],
)
def test_what_is_never_taken(key: str, value: Any) -> None:
    error = refused({**GOOD, key: value})
    assert error.key == key
    assert key in str(error)


def test_what_a_shown_recipe_says_of_defaults_is_taken() -> None:
    found = check({**GOOD, "track": [], "trust_factories": [], "device": "auto", "schema_version": 1})
    assert found.kind == "compress"


@pytest.mark.parametrize("value", ["os:system", "mynets.small:make", "subprocess:Popen", "a.b.c:d.e"])
@pytest.mark.parametrize("key", ["model", "data"])
def test_code_is_for_workers_that_take_it(key: str, value: str) -> None:
    assert check({**GOOD, key: value}).labels == {"code"}


@pytest.mark.parametrize("value", ["os.system", "os:", ":system", "os:sys tem", "os:system()", "os:system;x", "a:b:c"])
def test_what_is_no_factory_is_no_model(value: str) -> None:
    assert refused({**GOOD, "model": value}).key == "model"


def test_models_of_other_libraries() -> None:
    assert check({**GOOD, "model": "timm:resnet18.a1_in1k"}).labels == set()
    assert "hf:NAME" in str(refused({**GOOD, "model": "hf:org/name"}))
    allowed = Policy(hugging_face=True)
    written = Written({**GOOD, "model": "hf:org/name.v1"}, "")
    assert submission_of(written, allowed).labels == set()
    for bad in (
        "hf:../x",
        "hf:/x",
        "hf:a/b/c",
        "hf:a/..",
        "hf:.hidden",
        "timm:local-dir:/x",
        "timm:hf_hub:a/b",
        "timm:../x",
    ):
        with pytest.raises(RecipeError):
            submission_of(Written({**GOOD, "model": bad}, ""), allowed)


def test_an_unknown_model_is_told_with_the_closest() -> None:
    error = refused({**GOOD, "model": "resnet19"})
    assert "Did you mean resnet18" in str(error)
    assert submission_of(Written({**GOOD, "model": "resnet19"}, ""), Policy()).kind == "compress"  # names not known yet


def test_uploads_and_data_sets_and_starts() -> None:
    found = check({**GOOD, "weights": f"upload:{ID}", "data": "cifar", "start": f"job:{ID}", "search": "oneshot"})
    assert (found.weights, found.data, found.start) == (ID, None, ID)
    assert check({**GOOD, "data": f"upload:{ID}"}).data == ID
    assert "cifar" in str(refused({**GOOD, "data": "cifar100"}))


def test_targets_are_those_that_are_known() -> None:
    good = {"model": "resnet18", "budgets": {"latency": "60%"}, "target": "jetson-1"}
    assert check(good).targets == ("jetson-1",)
    error = refused({**good, "target": "jetson-2"})
    assert error.key == "target"
    assert "Did you mean jetson-1" in str(error)


def test_sweeps_are_told_by_their_budgets() -> None:
    values = {"model": "resnet18", "budgets": {"flops": ["25%", "50%"]}, "seeds": [0, 1]}
    found = check(values)
    assert found.kind == "sweep"
    assert found.recipe["budgets"] == {"flops": ["25%", "50%"]}
    assert check({"model": "resnet18", "budgets.flops": ["25%", "50%"]}).kind == "sweep"
    assert refused({**values, "targets": ["/dev/null"], "budgets": {"latency": ["1ms", "2ms"]}}).key == "targets"
    with pytest.raises(RecipeError, match="several budgets"):
        check(values, kind="compress")


def test_what_is_missing_is_told() -> None:
    assert "No budget" in str(refused({"model": "resnet18"}))
    assert "model" in str(refused({"budgets": {"flops": "50%"}}))
    assert check({"model": "resnet18"}, whole=False).recipe == {"model": "resnet18"}


def test_free_texts_of_methods_have_rules() -> None:
    search = {"search": "dnarch", "data": "digits"}
    assert check({**GOOD, **search, "dnarch": {"compiler": "inductor"}})
    error = refused({**GOOD, **search, "dnarch": {"compiler": "os:system"}})
    assert error.key == "dnarch.compiler"
    assert (
        refused({**GOOD, "data": "digits", "search": "supernet", "supernet": {"lowest": "/etc=1"}}).key
        == "supernet.lowest"
    )


def test_every_key_that_takes_text_has_a_rule() -> None:
    """A key that is added later is refused until somebody has thought about it; this says which."""
    keys = {(name,): key for name, key in (job_keys() | sweep_keys()).items()}
    keys |= {(each.name, name): key for each in usable_methods() for name, key in method_keys(each).items()}
    named = {"out", "force", "lut", "track", "trust_factories", "search", "importance", "export", "methods"}
    without = [
        ".".join(path)
        for path, key in keys.items()
        if not _is_harmless(key.kind) and not hasattr(_Checker, f"_rule_{'__'.join(path)}") and path[0] not in named
    ]
    assert without == []
    assert not any(_is_harmless(kind) for kind in (Text(), Place(), Names()))


def test_sources_of_data_are_all_known() -> None:
    from compressor.data.load import SOURCES as there

    assert set(there.names()) == SOURCES


@pytest.mark.parametrize(
    ("body", "line", "key"),
    [
        (b"model: resnet18\nbudgets:\n  flops: lots\n", 3, "budgets.flops"),
        (b"model: resnet18\nbudgets: {flops: 50%}\nout: /tmp/x\n", 3, "out"),
        (b"model: resnet18\nbudgets: {flops: 50%}\n\nfigs:\n  tau: -1\n", 5, "figs.tau"),
        (b"modle: resnet18\n", 1, "modle"),
        (b"model: resnet18\nmodel: resnet18\n", 2, None),
        (b"model: [resnet18\n", 2, None),
        (b"model: !!python/object:os.system x\n", 1, None),
        (b"model: &a resnet18\nweights: *a\n", 1, None),
    ],
)
def test_yaml_says_its_lines(body: bytes, line: int, key: str | None) -> None:
    with pytest.raises(RecipeError) as caught:
        submission_of(read_body(body, "application/yaml; charset=utf-8"), POLICY)
    assert (caught.value.line, caught.value.key) == (line, key)


def test_json_says_its_lines_too() -> None:
    body = b'{\n  "model": "resnet18",\n  "budgets": {\n    "flops": "lots"\n  }\n}'
    with pytest.raises(RecipeError) as caught:
        submission_of(read_body(body, "application/json"), POLICY)
    assert (caught.value.line, caught.value.key) == (4, "budgets.flops")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"model"',
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 60_000,
        b'{"a":' * 9000 + b"1" + b"}" * 9000,
        b'{"a": [[[[[[[[[[1]]]]]]]]]]}',
        b'{"include": [' + b",".join([b'"a"'] * 6000) + b"]}",
        b'{"model": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_hostile_json_is_refused(body: bytes) -> None:
    with pytest.raises(RecipeError):
        read_body(body, "application/json")


@pytest.mark.parametrize(
    "body",
    [
        b"a: " + b"[" * 5000,
        b"? [a]\n: b\n",
        b"a: 1\n---\nb: 2\n",
        b"a: \x00\n",
        b"x: y\n" * 20_000,
        b"- a\n",
    ],
)
def test_hostile_yaml_is_refused(body: bytes) -> None:
    with pytest.raises(RecipeError):
        read_body(body, "application/yaml")


@pytest.mark.parametrize(
    "values",
    [
        {"model": 3},
        {"model": ["resnet18"]},
        {"model": {"a": "b"}},
        {"model": "resnet18", "budgets": "50%"},
        {"model": "resnet18", "budgets": {"flops": {"a": 1}}},
        {"model": "resnet18", "budgets": {"flops": "-5%"}},
        {"model": "resnet18", "budgets": {"latency": "5ms"}},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "figs": "x"},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "figs": {"lr": "fast"}},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "input_shape": [99999, 99999, 99999]},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "batch_size": 10**30},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "export": ["/bin/sh"]},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "search": "../x"},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "importance": "os:system"},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "tune": "/etc/passwd"},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "__class__": "x"},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "": "x"},
        {"model": "resnet18", "budgets": {"flops": "50%"}, "figs.lr": 1, "figs": {"lr": 2}},
        {"model": "<script>alert(1)</script>", "budgets": {"flops": "50%"}},
        {"model": "x" * 60_000, "budgets": {"flops": "50%"}},
    ],
)
def test_hostile_recipes_are_refused_in_one_line(values: dict[str, Any]) -> None:
    error = refused(values)
    assert "\n" not in str(error)
    assert len(str(error)) < 2000


@pytest.mark.parametrize("model", ["x" * 5000, "timm:" + "x" * 5000, "m" * 5000 + ":make", "m:" + "x" * 300])
def test_names_too_long_for_a_file_are_names(model: str) -> None:
    """Which models there are is not known while a server begins; a name is then left to the worker."""
    written = read_body(json.dumps({"model": model, "budgets": {"flops": "50%"}}).encode(), "application/json")
    assert submission_of(written, Policy()).recipe["model"] == model


def test_what_stands_for_files_becomes_files() -> None:
    recipe = {"model": "upload:a", "weights": "upload:a", "data": "cifar", "start": "job:b", "budgets": {"flops": "1%"}}
    places = {"upload:a": "w.safetensors", "cifar": "cifar10:/data", "job:b": "parent"}
    assert replaced(recipe, places) == {
        "model": "upload:a",
        "weights": "w.safetensors",
        "data": "cifar10:/data",
        "start": "parent",
        "budgets": {"flops": "1%"},
    }
