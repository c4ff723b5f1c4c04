from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pytest

from compressor.errors import UsageError
from compressor.report import (
    SCHEMA_VERSION,
    Accuracy,
    BudgetResult,
    FileWritten,
    LeftAlone,
    PairedTiming,
    PredictionError,
    Quantisation,
    Report,
    Verification,
    Width,
    render_html,
    summary_text,
    wording,
)
from tests.report.fake_report import fake_latency, fake_report, slower_report

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Checker(HTMLParser):
    """Collects tags and visible text, and sees to it that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def parse(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    return checker


@pytest.mark.parametrize("report", [fake_report(), slower_report(), Report("empty")], ids=lambda r: r.model)
def test_json_round_trip(report: Report) -> None:
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert next(iter(found)) == "schema_version"
    assert found["schema_version"] == SCHEMA_VERSION
    assert Report.from_json(found) == report


def test_fake_fills_every_field() -> None:
    report = fake_report()
    empty = [field.name for field in fields(report) if getattr(report, field.name) in (None, [], {}, "")]
    assert empty == ["prediction_error", "warnings"]


def test_numbers_that_are_not_finite_survive_json() -> None:
    report = Report(
        "m", budgets=[BudgetResult("latency", "ms", "3ms", math.nan, 3.0, math.inf)], history=[{"loss": math.nan}]
    )
    found = Report.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False)))
    assert math.isnan(found.budgets[0].original)
    assert found.history == [{"loss": None}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "update compressor"),
        ({"schema_version": None}, "no report"),
        ({"budgets": 3}, r"report\.budgets should be a list, not 3"),
        ({"budgets": [{"cost": "flops"}]}, r"report\.budgets\[0\]\.unit is missing"),
        ({"seed": "seven"}, r"report\.seed should be a whole number, not 'seven'"),
        ({"pretrained": 1}, r"report\.pretrained should be true or false"),
    ],
)
def test_bad_json_says_where(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Report.from_json({**fake_report().to_json(), **change})


def test_a_list_is_no_report() -> None:
    with pytest.raises(UsageError, match="no report"):
        Report.from_json([])  # type: ignore[arg-type]


def test_unknown_keys_are_left_out() -> None:
    assert Report.from_json({**fake_report().to_json(), "later": 1}) == fake_report()


class TestHeadline:
    def test_faster(self) -> None:
        head = wording.headline(fake_report())
        assert head.tone == "good"
        assert re.fullmatch(r"1\.5\d times as fast on onnxruntime-cpu", head.text)
        assert "0.980 ms instead of 1.52 ms" in head.detail

    def test_slower_comes_first_everywhere(self) -> None:
        report = slower_report()
        assert wording.headline(report).tone == "bad"
        assert summary_text(report).splitlines()[0].startswith("densenet121: Not faster")
        words = "".join(parse(render_html(report)).words)
        assert words.index("Not faster") < words.index("Multiply-adds")

    def test_a_difference_within_the_noise_is_not_faster(self) -> None:
        report = Report("m", latencies=[fake_latency(2.0, 2.0)])
        report.latencies[0].ratio.update(value=0.99, low=0.97, high=1.01, verdict="no measurable difference")
        assert wording.headline(report).text == "Not faster: no measurable difference on onnxruntime-cpu"

    def test_noise_takes_the_green_away(self) -> None:
        good = fake_latency(2.0, 1.0)
        noisy = PairedTiming(
            good.target, good.original, good.compressed, good.ratio, noise="This machine is too noisy."
        )
        report = Report("m", latencies=[noisy])
        assert wording.headline(report).tone == "neutral"
        assert "too noisy" in summary_text(report)

    def test_without_latency_nothing_is_claimed_about_speed(self) -> None:
        report = Report("m", budgets=[BudgetResult("params", "params", "50%", 100, 50, 49)])
        head = wording.headline(report)
        assert head.text == "Reduced to 49.0 % of its parameters"
        assert "nothing is known about speed" in head.detail
        missed = Report("m", budgets=[BudgetResult("params", "params", "50%", 100, 50, 51)])
        assert wording.headline(missed).tone == "bad"
        assert wording.headline(Report("m")).text == "Nothing was compressed"


def test_random_weights_and_failures_are_loud() -> None:
    report = fake_report()
    report.pretrained = False
    report.verification = Verification(1e-3)
    for page in (summary_text(report), "".join(parse(render_html(report)).words)):
        assert "weights are random" in page
        assert "do not use it" in page
    assert len(wording.warnings(report)) == len(set(wording.warnings(report)))


def test_random_weights_that_the_job_trained_are_no_warning() -> None:
    report = fake_report()
    report.pretrained, report.trained_epochs = False, 7
    assert not any("random" in line for line in wording.warnings(report))
    page = "".join(parse(render_html(report)).words)
    assert "weights were random" in page
    assert "trained here for 7 epochs" in page


def test_accuracy_change() -> None:
    assert Accuracy(before=0.9, after_search=0.5).change_points == pytest.approx(-40)
    assert Accuracy(before=0.9, after_search=0.5, after_finetune=0.91).change_points == pytest.approx(1)
    assert Accuracy(after_search=0.5).change_points is None


def test_trials_are_rows_with_the_winner_and_what_was_lost() -> None:
    report = fake_report()
    assert report.tuning is not None
    text = summary_text(report)
    assert "4, 1 lost" in text
    assert "lr 0.1, weight decay 0.0005, momentum 0.9, dropout 0.05: 86.00 %" in text
    words = " ".join(parse(render_html(report)).words)
    for expected in ("Tuning", "Dropout", "86.00 %", "chosen", "lost", "Loss is NaN", "500 samples of the validation"):
        assert expected in words
    report.tuning = replace(report.tuning, won=None, trials=report.tuning.trials[:1])
    assert "all were lost" in summary_text(report)
    assert "All were lost" in render_html(report)


def test_errors_are_shown_under_their_name_and_direction() -> None:
    report = fake_report()
    report.quantisation = report.tuning = None
    report.ranking = []
    report.accuracy, report.prediction_error = None, PredictionError("val", 50, 0.2, 0.5, 0.15, "relative L2 error")
    assert report.score is report.prediction_error
    assert Report.from_json(report.to_json()) == report
    document = report.to_json()["prediction_error"]
    assert (document["metric"], document["lower_is_better"]) == ("relative L2 error", True)
    found = summary_text(report)
    assert "before             0.2   relative L2 error, lower is better, val of 50" in found
    assert "+150.0 %" in found
    assert "-25.0 %" in found
    words = " ".join(parse(render_html(report)).words)
    for expected in ("Relative L2 error on 50 samples of the val split; lower is better.", "0.15", "25.0 %"):
        assert expected in words
    assert words.count("Relative L2 error") == 2
    assert "ccuracy" not in found + words
    report.quantisation = Quantisation(0.15, 0.18, "val", 50, 10, 4, 8, None, "relative L2 error", True)
    assert "error  0.15  -> 0.18  +20.0 %, val of 50" in summary_text(report)
    assert "ccuracy" not in " ".join(parse(render_html(report)).words)
    for odd in (PredictionError(before=0.0, after_search=0.1), PredictionError(after_search=0.1)):
        report.prediction_error = odd
        assert "0.1" in " ".join(parse(render_html(report)).words)


def test_architecture_has_a_row_and_a_shape_for_every_block() -> None:
    report = fake_report()
    found = parse(render_html(report))
    words = " ".join(found.words)
    residual = [block for block in report.blocks if block.residual]
    assert f"{sum(not b.removed for b in residual)} of {len(residual)} residual blocks are left." in words
    for expected in ("[32 32 32] → [32 19 26]", "[3 3] → [3 1]", "[16 16] → [16 8]", "removed"):
        assert expected.replace("→ ", "→  ") in words
    shapes = [attributes for tag, attributes in found.seen if tag == "polygon"]
    assert len(shapes) == 2 * len(report.blocks) - 1  # before and after; one block is gone
    assert any(tag == "summary" for tag, _ in parse(render_html(slower_report())).seen)


@pytest.mark.parametrize("report", [fake_report(), slower_report(), Report("empty")], ids=lambda r: r.model)
def test_page_is_well_formed_and_self_contained(report: Report) -> None:
    page = render_html(report)
    found = parse(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in found.seen}
    assert not [a for _, attributes in found.seen for a in attributes if a.startswith("on") or a in {"href", "src"}]
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    for _, attributes in found.seen:  # no coordinate may be nan or inf
        assert not [v for v in attributes.values() if v and re.search(r"\b(nan|inf)\b", v)]


def test_page_shows_what_the_report_holds() -> None:
    words = " ".join(parse(render_html(fake_report())).words)
    for expected in (
        "resnet20_cifar",
        "49.9 %",
        "91.50 %",
        "86.20 %",
        "90.70 %",
        "1.52 ms",
        "layer3.1.conv1",
        "64 → removed",
        "pads channels on both sides",
        "aten.constant_pad_nd",
        "3.1e-15",
        'compressor.load("path/to/this/folder")',
        "onnxruntime.InferenceSession('model.onnx')",
        "AMD EPYC 7763",
        "Cost during the search",
        "No GPU here",
        "1 block taken out whole",
    ):
        assert expected in words, expected


def test_parts_without_data_are_left_out() -> None:
    words = " ".join(parse(render_html(Report("empty"))).words)
    for title in ("Accuracy", "Latency", "Layer widths", "Cost during the search", "left alone", "Asked"):
        assert f"{title}" not in words.replace("Latency was not measured", "")


def test_all_text_is_escaped() -> None:
    evil = "<script>alert('x')</script>&\""
    report = slower_report()
    report.model = report.model_class = report.search = report.data = report.command = report.weights = evil
    report.warnings = [evil]
    report.blocks_removed = [evil]
    report.fixed = [LeftAlone(evil, evil, evil)]
    report.widths = [Width(evil, 4, 2, evil)]
    report.files = [FileWritten(evil, "onnx", 1, None, [], [evil])]
    report.budgets = [BudgetResult(evil, evil, evil, 2.0, 1.0, 1.0)]
    report.stage_seconds = {evil: 1.0}
    report.versions = report.machine = {evil: evil}
    page = render_html(report)
    assert "<script" not in page
    assert evil in "".join(parse(page).words)


def test_many_layers_fold_away() -> None:
    assert ("details", {}) in parse(render_html(slower_report())).seen
    assert " ".join(parse(render_html(slower_report())).words).count("denselayer") == 4 * 160  # twice in the picture


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1234567, "1.23 M"),
        (4.09e9, "4.09 G"),
        (999_960, "1.00 M"),
        (12.5, "12.5"),
        (1e12, "1.00 T"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert wording.count(value) == text


def test_other_units() -> None:
    assert wording.size_bytes(999) == "999 B"
    assert wording.size_bytes(102_100_000) == "102 MB"
    assert wording.milliseconds(0.01234) == "0.0123 ms"
    assert wording.milliseconds(123.4) == "123 ms"
    assert wording.seconds(3.14159) == "3.1 s"
    assert wording.seconds(59.7) == "1 min 0 s"
    assert wording.seconds(7380) == "2 h 3 min"
    assert wording.count(math.nan) == "unknown"


def test_summary_is_plain() -> None:
    for report in (fake_report(), slower_report(), Report("empty")):
        text = summary_text(report)
        assert text.isascii()
        assert not any(line != line.rstrip() for line in text.splitlines())
