from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut import Device, InvalidKeyError, Measurement, Signature, Target, cpu_device
from tests.lut.lut_devices import CONV, TARGET

sizes = st.lists(st.integers(1, 512), max_size=3).map(tuple)
attributes = st.dictionaries(
    st.text(max_size=6), st.one_of(st.integers(), st.booleans(), st.text(max_size=6), st.floats(allow_nan=False))
)
signatures = st.builds(
    Signature,
    kind=st.sampled_from(["conv2d", "linear", "concat"]),
    kernel=sizes,
    stride=sizes,
    padding=sizes,
    spatial=sizes,
    groups=st.integers(1, 64),
    fused=st.lists(st.sampled_from(["norm", "relu", "add"]), max_size=3).map(tuple),
    attributes=attributes,
    axes=st.sampled_from([1, 2]),
)


@given(signatures)
def test_a_signature_comes_back_from_its_text(signature: Signature) -> None:
    again = Signature.from_key(signature.key)
    assert again == signature
    assert again.key == signature.key
    assert "\n" not in signature.key


@given(signatures, signatures)
def test_texts_are_equal_exactly_when_signatures_are(one: Signature, two: Signature) -> None:
    assert (one.key == two.key) == (one == two)


def test_order_of_attributes_does_not_matter() -> None:
    one = Signature("resize", attributes={"mode": "bilinear", "scale": 2})  # type: ignore[arg-type]
    two = Signature("resize", attributes=(("scale", 2), ("mode", "bilinear")))
    assert one == two
    assert one.key == two.key


def test_a_field_at_its_default_stays_out_of_the_text_so_that_later_fields_do_not_change_old_keys() -> None:
    assert Signature("linear").key == 'signature/1 {"kind":"linear"}'


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Target)])
def test_every_field_of_a_target_tells_targets_apart(field: str) -> None:
    value = {"device": Device("simulated", "other"), "threads": 7, "batch": 7}.get(field, "other")
    changed = dataclasses.replace(TARGET, **{field: value})  # type: ignore[arg-type]
    assert changed.key != TARGET.key
    assert changed.differences(TARGET) == (field,)
    assert Target.from_key(changed.key) == changed


@pytest.mark.parametrize(
    "text", ["", "conv2d", "signature/2 {}", "signature/1 {", "signature/1 []", "target/1 {}", 'signature/1 {"new":1}']
)
def test_texts_of_another_kind_or_version_are_refused(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        Signature.from_key(text)


@pytest.mark.parametrize("text", ["target/1 {}", 'target/1 {"device":3}', 'target/1 {"runtime":"a"}'])
def test_incomplete_targets_are_refused(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        Target.from_key(text)


@pytest.mark.parametrize(
    "values",
    [
        {"median_ms": 0.0},
        {"median_ms": float("nan")},
        {"median_ms": None},
        {"median_ms": 1.0, "status": "fine"},
        {"median_ms": 1.0, "status": "refused"},
        {"median_ms": 1.0, "spread": -1.0},
    ],
)
def test_measurements_that_mean_nothing_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidKeyError):
        Measurement(**values)  # type: ignore[arg-type]


def test_of_two_measurements_the_good_then_the_longer_then_the_steadier_is_better() -> None:
    good = Measurement(1.0, 0.1, 10)
    assert good.better_than(Measurement(1.0, 0.0, 1000, status="noisy"))
    assert Measurement(1.0, 0.1, 20).better_than(good)
    assert Measurement(1.0, 0.05, 10, measured_at=good.measured_at).better_than(good)
    assert not good.better_than(good)
    assert Measurement(1.0, status="noisy").better_than(Measurement.refused("no kernel"))


def test_depthwise_has_one_axis_and_its_points_are_checked() -> None:
    with pytest.raises(InvalidKeyError, match="axes=1"):
        Signature("conv2d", depthwise=True)
    depthwise = Signature("conv2d", depthwise=True, axes=1)
    assert depthwise.point(8) == (8, 8)
    with pytest.raises(InvalidKeyError, match="8 in and 16 out"):
        depthwise.point(8, 16)
    with pytest.raises(InvalidKeyError, match="at least 1"):
        CONV.point(0, 8)


def test_the_cpu_fingerprint_leaves_out_what_changes_from_boot_to_boot(tmp_path: Path) -> None:
    text = "model name : Some CPU  @ 2GHz\ncpu MHz : {}\nflags : fpu avx2 fma {}\ncpu family : 6\nmodel : 85\n\n"
    first, second, other = (tmp_path / name for name in "abc")
    first.write_text(text.format("2000.1", ""))
    second.write_text(text.format("3100.7", "a_new_kernels_flag"))
    other.write_text(text.format("2000.1", "avx512f"))
    assert cpu_device(first) == cpu_device(second)
    assert cpu_device(first).fingerprint == cpu_device(second).fingerprint
    assert cpu_device(first).fingerprint != cpu_device(other).fingerprint
    assert cpu_device(first).features == ("avx2", "fma")


def test_the_cpu_has_a_name_even_without_cpuinfo(tmp_path: Path) -> None:
    assert cpu_device(tmp_path / "missing").name
    arm = tmp_path / "arm"
    arm.write_text("CPU implementer : 0x41\nCPU part : 0xd0c\nFeatures : asimd asimddp fphp\n")
    assert "ARM implementer 0x41 part 0xd0c" in cpu_device(arm).name
    assert cpu_device(arm).features == ("asimd", "asimddp")
