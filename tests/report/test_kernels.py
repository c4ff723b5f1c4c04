"""Kernels in the report: the notation, pictures that hold every tap, charts of what was likely, odd records."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from compressor.report import (
    BlockShape,
    ChoiceMade,
    Convolution,
    Probabilities,
    Report,
    Width,
    kernels,
    render_html,
    summary_text,
)
from compressor.report.page.kernels import picture, strip
from tests.report.fake_report import fake_report
from tests.report.test_report import parse

HUGE = 2**63 - 1


def of_sites(count: int, axes: int = 2, **changes: Any) -> Report:
    """A stem, then blocks of two; kernels and dilations differ from site to site."""
    names = ["stem", *(f"blocks.{i // 2}.conv{i % 2}" for i in range(count))][:count]
    operators = {
        name: Convolution(
            [3 + 2 * (i % 4)] * axes, [(1, 3, 7)[i % 3]] * axes, [3] * axes, [1] * axes, [64 >> (i * 5 // count)] * axes
        )
        for i, name in enumerate(names)
    }
    alternatives = ["3 d1", "5 d3", "7 d7"]
    return Report(
        "net",
        operators=operators,
        widths=[Width(name, 8, 8) for name in names],
        blocks=[BlockShape(f"blocks.{i}", [3], [3], [9], [9], [8, 8, 8], [8, 8, 8], True) for i in range(count // 2)],
        choices=[ChoiceMade(name, "convolution", "3 d1", "5 d3") for name in names],
        probabilities=[
            Probabilities(name, alternatives, [0, 10], [[0.3, 0.4, 0.3], [0.2, 0.7, 0.1]]) for name in names
        ],
        **changes,
    )


def pages(report: Report) -> tuple[Any, str]:
    """The page, well-formed and with finite coordinates, and the text."""
    found, text = parse(render_html(report)), summary_text(report)
    for _, attributes in found.seen:
        assert not [v for v in attributes.values() if v and re.search(r"\b(nan|inf)\b|e\+", v)]
    return found, text


class TestNotation:
    def test_blocks_and_layers_in_order(self) -> None:
        parts = kernels.notation(kernels.sites(of_sites(5)))
        assert parts == [("Conv", "8,(3,1)"), ("Block", "8,(5,3),(7,7)"), ("Block", "8,(9,1),(3,3)")]
        assert kernels.plain(parts, 40) == ["Conv_{8,(3,1)} Block_{8,(5,3),(7,7)}", "Block_{8,(9,1),(3,3)}"]

    def test_axes_that_differ_and_channels_that_are_not_known(self) -> None:
        report = Report("net", operators={"one": Convolution([1, 7], [1, 3])})
        assert kernels.notation(kernels.sites(report)) == [("Conv", "(1x7,1x3)")]
        assert "Conv_{(1x7,1x3)}" in summary_text(report)

    def test_what_a_later_round_took_out_is_not_in_the_network(self) -> None:
        report = fake_report()
        assert kernels.plain(kernels.notation(kernels.sites(report))) == ["Conv_{11,(7,1)} Block_{26,(3,1)}"]
        assert "removed later" in " ".join(parse(render_html(report)).words)

    def test_the_innermost_block_counts(self) -> None:
        report = of_sites(3)
        report.operators["blocks.more"] = Convolution([3], [1])
        report.blocks.insert(0, BlockShape("blocks", [3], [3], [], [], [8, 5], [8, 5], True))
        found = [site.block.name if site.block else None for site in kernels.sites(report)]
        assert found == [None, "blocks.0", "blocks.0", "blocks"]


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("count", [1, 10, 60, 200])
def test_every_site_has_a_picture_a_row_and_a_chart(axes: int, count: int) -> None:
    report = of_sites(count, axes)
    found, _ = pages(report)
    words = " ".join(found.words)
    assert sum(tag == "figcaption" for tag, _ in found.seen) == 2 * count
    for name in report.operators:
        assert words.count(name) >= 3
    assert f"of {count} convolutions is another one" in words
    assert "Choices" not in words  # they are told of as kernels
    assert len(render_html(report)) < 8000 * count + 20_000


def test_without_kernels_or_probabilities_nothing_is_said() -> None:
    words = " ".join(parse(render_html(Report("empty"))).words)
    assert "Kernels" not in words
    assert "Alternatives" not in words
    assert "Kernels" not in summary_text(Report("empty"))


def test_taps_lie_as_far_apart_as_they_read() -> None:
    wide = {}
    for dilation in (1, 3):
        report = Report("net", operators={"a": Convolution([3, 3], [dilation] * 2, [3, 3], [1, 1], [32, 32])})
        drawn = picture(kernels.sites(report)[0])
        rows = re.search(r'd="((?:M[\d.]+ [\d.]+h[\d.]+)+)"', drawn)
        assert rows is not None
        heights = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h", rows[1])]
        assert len(heights) == 3
        wide[dilation] = heights[1] - heights[0]
        assert heights[2] - heights[1] == pytest.approx(wide[dilation], abs=0.02)
    assert wide[3] > 2.5 * wide[1] * (15 / 35)  # each in a frame of five times its own extent


def test_unchanged_kernels_are_grey() -> None:
    for draw, axes in ((picture, 2), (strip, 1)):
        for kernel, said in (([3] * axes, False), ([5] * axes, True)):
            report = Report("net", operators={"a": Convolution(kernel, [1] * axes, [3] * axes, [1] * axes)})
            assert ("--accent" in draw(kernels.sites(report)[0])) is said


def test_what_is_chosen_though_another_was_likelier_is_told() -> None:
    row = Probabilities("a", ["x", "y", "out"], [0, 5], [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]])
    report = Report("net", probabilities=[row], choices=[ChoiceMade("a", "activation", "x", "x")])
    words = " ".join(pages(report)[0].words)
    assert "At 1 of 1 sites the likeliest was not taken" in words
    assert "x 25 %" in words
    assert "y 75 %" in words
    report.choices = []  # nothing is known of the decision
    assert "y 75 %" in " ".join(pages(report)[0].words)


@pytest.mark.parametrize(
    "row",
    [
        Probabilities("a", [], [], []),
        Probabilities("a", ["x"], [0], []),
        Probabilities("a", ["x", "y"], [0], [[1.0]]),
        Probabilities("a", ["x", "y"], [0], [[0.0, 0.0]]),
        Probabilities("a", ["x"], [7], [[1.0]]),
        Probabilities("a", ["x", "x"], [9, 9, 3], [[0.1, 0.2]] * 3),
        Probabilities("a", ["x"], [0, HUGE], [[1.0], [0.0]]),
    ],
)
def test_odd_probabilities(row: Probabilities) -> None:
    pages(Report("net", probabilities=[row]))


@pytest.mark.parametrize(
    "entry",
    [
        Convolution([], []),
        Convolution([3], []),
        Convolution([0, 0], [1, 1]),
        Convolution([3], [0]),
        Convolution([HUGE], [HUGE]),
        Convolution([HUGE, 1], [1, HUGE], [1, HUGE], [HUGE, 1], [HUGE, 0]),
        Convolution([3, 3, 3], [1, 1, 1], [3, 3, 3], [1, 1, 1], [4, 4, 4]),
        Convolution([3, 3], [1, 1], [3], [1], [5]),
        Convolution([1] * 40, [1] * 40),
    ],
)
def test_odd_kernels(entry: Convolution) -> None:
    report = Report("net", operators={"": entry}, widths=[Width("", 0, HUGE)])
    found, _ = pages(report)
    assert len(render_html(report)) < 40_000
    for _, attributes in found.seen:
        numbers = [float(v or 0) for k, v in attributes.items() if k in {"x", "y", "width", "height"}]
        assert all(math.isfinite(number) and abs(number) < 1e4 for number in numbers)


def test_names_are_escaped_and_reports_go_through_json() -> None:
    evil = "<script>alert('x')</script>&\""
    report = of_sites(2)
    report.operators[evil] = Convolution([5, 5], [1, 1], [3, 3], [1, 1], [8, 8])
    report.probabilities.append(Probabilities(evil, [evil, "b"], [0, 1], [[0.5, 0.5]] * 2))
    page = render_html(report)
    assert "<script" not in page
    assert "".join(parse(page).words).count(evil) >= 3
    assert Report.from_json(report.to_json()) == report
    old = {"operators": {"a": {"kernel_size": [3], "dilation": [1]}}}  # as an earlier version wrote it
    assert Report.from_json({**Report("net").to_json(), **old}).operators["a"] == Convolution([3], [1])
