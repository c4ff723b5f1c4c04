"""Configurations of pooling are ranked; rankings are compared with known accuracies, and printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.cli import main
from compressor.errors import UsageError
from compressor.report import Ranked, render_html
from compressor.report.ranking import agreement, front
from tests.search.staged import search

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "accuracy" / "pooling_published.json"


def ranked(names: list[str]) -> list[Ranked]:
    costs = [{"flops": float(10 - i), "memory": 1.0} for i in range(len(names))]
    return [Ranked(n, 0.5, 0.9 - 0.01 * i, costs=c) for i, (n, c) in enumerate(zip(names, costs, strict=True))]


def test_agreement_with_the_published_accuracies() -> None:
    known = json.loads(PUBLISHED.read_text())["accuracies"]
    assert len(known) == 36
    assert known["[4, 3, 3]"] == 90.52
    by_accuracy = sorted(known, key=lambda name: -known[name])
    assert by_accuracy[0] == "[7, 1, 2]"
    assert agreement(ranked(by_accuracy), known) > 0.99  # two accuracies occur twice
    assert agreement(ranked(by_accuracy[::-1]), known) < -0.99


def test_known_accuracies_of_other_configurations_are_refused() -> None:
    rows = ranked(["[1, 2]", "[2, 1]"])
    assert agreement(rows, {"[1,2]": 3.0, "[2,1]": 2.0}) == pytest.approx(1.0)
    with pytest.raises(UsageError, match=r"\[3, 1\]|\[3,1\]"):
        agreement(rows, {"[1, 2]": 3.0, "[3, 1]": 2.0, "[2, 1]": 1.0})
    with pytest.raises(UsageError, match=r"\[2, 1\] is missing"):
        agreement(rows, {"[1, 2]": 3.0})
    with pytest.raises(UsageError, match="the same"):
        agreement(rows, {"[1, 2]": 3.0, "[2, 1]": 3.0})


def test_the_front_has_what_nothing_beats() -> None:
    rows = [
        Ranked("a", 0.5, 0.9, costs={"flops": 5.0}),
        Ranked("b", 0.5, 0.8, costs={"flops": 6.0}),
        Ranked("c", 0.5, 0.7, costs={"flops": 3.0}),
        Ranked("d", 0.9, None, costs={"flops": 1.0}),
    ]
    assert [each.name for each in front(rows, "flops")] == ["c", "a"]


def test_the_command_prints_the_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = search({"flops": "300%"})
    result.save(tmp_path / "out")
    assert main(["rank", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert all(each.name in text for each in result.report.ranking)
    known = {each.name: float(-i) for i, each in enumerate(result.report.ranking)}
    (tmp_path / "known.json").write_text(json.dumps(known))
    assert main(["rank", str(tmp_path / "out"), "--known", str(tmp_path / "known.json"), "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kendall_tau"] == pytest.approx(1.0)
    assert main(["rank", str(tmp_path / "out"), "--front", "flops"]) == 0
    capsys.readouterr()
    wrongs = [(["--front", "colour"], "flops"), (["--known", str(tmp_path / "none.json")], "none.json")]
    for at, document in enumerate(([1.0, 2.0], "text", 3, {"accuracies": [1]}, dict.fromkeys(known, 1.0))):
        file = tmp_path / f"{at}.json"
        file.write_text(json.dumps(document))
        wrongs.append((["--known", str(file)], "accuracies"))
    result.report.ranking = [replace(each, score=None) for each in result.report.ranking]
    result.save(tmp_path / "lost")
    assert main(["rank", str(tmp_path / "lost"), "--front", "flops"]) == 2
    assert "has a score" in capsys.readouterr().err
    for wrong, said in wrongs:
        assert main(["rank", str(tmp_path / "out"), *wrong]) == 2
        assert said in capsys.readouterr().err
    page = render_html(result.report)
    assert "Where to pool" in page
    assert result.report.ranking[0].name in page
