"""The page of a sweep, and of a search space over training: well-formed, self-contained, and what the rows say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from compressor.report.fronts import FrontPage, Mark
from compressor.report.page.cells import cells
from compressor.report.page.front import front_svg, render_front
from compressor.report.page.space import space
from tests.report.fake_report import fake_report
from tests.report.test_report import parse


def point(name: str, flops: float, score: float | None, **more: Any) -> dict[str, Any]:
    told = {"dominated_by": None, "method": "figs", "seed": 0, "target": None, "folder": name, "met": True}
    return {"name": name, "costs": {"flops": flops, "params": flops / 40}, "score": score, **told, **more}


def history(steps: int) -> list[dict[str, Any]]:
    noted = [
        {
            "max": {"width": 0.9, "depth": 1.0},
            "max_std": {"width": 0.05, "depth": 0.0},
            "min": {"width": 0.3, "depth": 0.5},
            "min_std": {"width": 0.1, "depth": 0.1},
        }
        for _ in range(steps)
    ]
    return [{"step": 10 * index, "policies": each} for index, each in enumerate(noted)]


PAGE = FrontPage(
    model="resnet20_cifar",
    data="digits",
    methods=["figs"],
    metric="top-1 accuracy",
    lower_is_better=False,
    before=0.92,
    original={"flops": 40e6, "params": 1e6},
    units={"flops": "macs", "params": "params"},
    costs=["flops", "params"],
    limits={"flops": [10e6, 20e6], "params": [5e5]},
    points=[
        point("flops-50pct", 19.7e6, 0.86, dominated_by="flops-25pct"),
        point("flops-25pct", 9.9e6, 0.87),
        point("flops-10pct", 4.1e6, 0.7, met=False),
    ],
    tried=[Mark("e1", {"flops": 8e6, "params": 2e5}, 0.8), Mark("e2", {"flops": 9e6}, None)],
    settings={"s1": {"width": {"layer1": [8, 16], "head": 24}, "kernel": 3, "squeeze": True}},
    history=history(5),
    missing=["flops-5pct"],
)


@pytest.mark.parametrize(
    "page",
    [
        PAGE,
        replace(PAGE, points=[], tried=[], settings={}, history=[], original={}, units={}, limits={}),
        replace(PAGE, points=[point("a", 1e6, None)], before=None, metric=""),
        replace(PAGE, points=[point("a", 1e6, 0.3)], lower_is_better=True, metric="relative L2 error"),
        replace(PAGE, methods=["figs", "oneshot"], points=[point("a", 1e6, 0.3), point("b", 1e6, 0.3, seed=1)]),
    ],
)
def test_it_is_well_formed_and_loads_nothing(page: FrontPage) -> None:
    html = render_front(page)
    found = parse(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in found.seen}
    links = [attributes["href"] for _, attributes in found.seen if "href" in attributes]
    assert links == [f"{row['folder']}/report.html" for row in page.points]
    assert "http://" not in html
    assert "https://" not in html
    for _, attributes in found.seen:
        assert not [v for v in attributes.values() if v and re.search(r"\b(nan|inf)\b", v)]


def test_it_says_who_beats_whom_and_what_is_missing() -> None:
    words = " ".join(parse(render_front(PAGE)).words)
    for expected in (
        "Not done yet: flops-5pct",
        "over budget",
        "beaten by",
        "87.00 %",
        "The original has 92.00 %",
        "19.7 M",
        "4 dimensions of 1 network",
        "8, 16",
        "flops-50pct: 0.86 at 19.7 M; beaten by flops-25pct",
        "budget: 10.0 M",
        "e1: 0.8 at 8.00 M",
        "Search space over training",
    ):
        assert expected in words, expected


def test_names_are_escaped() -> None:
    evil = "<script>alert('x')</script>"
    page = replace(
        PAGE, model=evil, data=evil, missing=[evil], points=[point(evil, 1e6, 0.5)], settings={evil: {evil: evil}}
    )
    assert "<script" not in render_front(page)
    assert "<script" not in front_svg(page, "flops")


def test_the_picture_stands_alone() -> None:
    picture = front_svg(PAGE, "flops")
    parse(picture)
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "prefers-color-scheme: dark" in picture
    assert "--accent" in picture


def test_a_chart_for_each_kind_of_dimension() -> None:
    words = " ".join(parse(space(history(700))).words)
    assert "Widths at step 6990: largest networks 90%, smallest networks 30%" in words
    assert "Depths at step 6990: largest networks 100%, smallest networks 50%" in words
    assert space([]) == ""
    assert space([{"step": 1}, {"step": 2}]) == ""
    assert len(space(history(7000))) < 3 * len(space(history(700))), "long histories are thinned out"


def test_operators_that_are_gone_are_struck_out() -> None:
    html = cells(fake_report())
    assert "<b>conv5</b>" in html
    assert '<s class="muted">conv3</s>' in html
    assert "layer2.0.ops" in html
    assert "1 of 3" in html
