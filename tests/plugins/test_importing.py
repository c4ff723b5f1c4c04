"""Import of the user's code by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import UsageError
from compressor.plugins.importing import import_attribute, is_attribute_spec


@pytest.mark.parametrize("text", ["a:b", "pkg.module:make", "pkg.module:Class.method", "_a._b:_c"])
def test_specs(text: str) -> None:
    assert is_attribute_spec(text)


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a:b:c", "a/b:c", "a b:c", "1a:b", "a.:b", "timm resnet:x"])
def test_no_specs(text: str) -> None:
    assert not is_attribute_spec(text)
    with pytest.raises(UsageError, match=r"package\.module:name"):
        import_attribute(text, "model factory")


def test_nested_attributes() -> None:
    assert import_attribute("pathlib:Path.cwd", "thing") == Path.cwd


@pytest.mark.parametrize(
    ("content", "attribute", "named"),
    [
        ("import no_such_dependency_x", "f", "needs 'no_such_dependency_x'"),
        ("raise RuntimeError('boom')", "f", "boom"),
        ("def make(): ...", "mke", "Did you mean 'make'"),
    ],
)
def test_errors_tell_whose_fault_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, attribute: str, named: str
) -> None:
    name = f"user_module_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=named):
        import_attribute(f"{name}:{attribute}", "model factory")
