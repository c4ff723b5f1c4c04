"""The page in a real browser: clicked through, by keyboard alone, at the width of a phone, in light and dark."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from compressor.service.page import preview
from compressor.service.services import Services
from tests.report.fake_report import fake_report
from tests.service.conftest import ServicesMaker
from tests.service.page.browser import Watched, served, started
from tests.service.page.looking import running
from tests.service.page.test_submit import INSPECTED, arrays
from tests.service.page.worked import Worked

pytestmark = pytest.mark.slow
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")

OVERLAPS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll("figure svg")) {
    const labels = [...svg.querySelectorAll("text")].map((each) => [each.textContent, each.getBoundingClientRect()]);
    labels.filter(([, box]) => box.width).forEach(([a, one], n, all) => all.slice(n + 1).forEach(([b, other]) => {
      const x = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const y = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      if (x > 1 && y > 4) found.push(`${a} | ${b}`);
    }));
  }
  return found;
}"""
"""Labels of pictures that stand on each other; lines may be a little closer than letters are high."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as found:
        yield found


@pytest.fixture
def parts(make_services: ServicesMaker, sqlite_url: str) -> Services:
    return make_services(sqlite_url, workers=0, real_clock=True)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with served(app) as found:
        yield found


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page())
    yield watched.page
    context.close()
    assert watched.errors == []


def test_a_job_from_the_form_to_its_end(tab: Any, url: str, parts: Services, worked: Worked) -> None:
    """The page follows without being loaded again."""
    tab.goto(url)
    tab.get_by_role("link", name="New job").first.click()
    tab.get_by_label("Model", exact=True).fill("resnet20_cifar")
    tab.get_by_label("Weights", exact=True).fill("none")
    tab.get_by_label("Multiply-adds", exact=True).fill("50")
    tab.get_by_role("button", name="Submit").click()
    tab.wait_for_url(re.compile(r"/jobs/[0-9a-f]{20}$"))
    tab.get_by_text("Waits for a worker").wait_for()
    claim = worked.claim()
    worked.say(claim, ("StageBegan", {"stage": "finetune"}))
    for done in range(1, 6):
        worked.say(claim, ("Step", {"stage": "finetune", "done": done, "total": 5, "values": {"loss": 1 / done}}))
    parts.leases.renew(claim.job.id, claim.token, stage="finetune", done=5, total=5)
    tab.get_by_text("Step 5 of 5").wait_for()
    tab.locator("#curves canvas").first.wait_for()
    assert "finetune" in (tab.locator("#announce").text_content() or "")
    worked.leave_all(claim, {"report.json": b"{}", "model.onnx": b"onnx"})
    worked.end(claim)
    tab.locator(".badge", has_text="done").first.wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="model.onnx").click()
    assert Path(download.value.path()).read_bytes() == b"onnx"


def test_by_keyboard_alone(tab: Any, url: str, parts: Services) -> None:
    tab.goto(f"{url}/jobs/new")

    def go_to(label: str) -> None:
        for _ in range(80):
            tab.keyboard.press("Tab")
            focused = tab.evaluate(
                "() => { const e = document.activeElement; return (e.labels && e.labels[0] || e).textContent.trim() }"
            )
            shown = tab.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert shown != "none", f"the focus on {focused!r} cannot be seen"
            if focused == label:
                return
        pytest.fail(f"{label} cannot be reached with the keyboard")

    tab.keyboard.press("Tab")
    assert tab.evaluate("() => document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("() => document.activeElement.id") == "main"
    go_to("Model")
    tab.keyboard.type("resnet20_cifar")
    go_to("Multiply-adds")
    tab.keyboard.type("half")
    tab.keyboard.press("Enter")
    tab.locator("#errors").wait_for()
    assert tab.evaluate("() => document.activeElement.id") == "errors", "what is wrong is read at once"
    assert tab.get_by_label("Model", exact=True).input_value() == "resnet20_cifar"
    go_to("Multiply-adds")
    tab.keyboard.press("Control+A")
    tab.keyboard.type("50")
    go_to("Submit")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile(r"/jobs/[0-9a-f]{20}$"))
    assert [job.state for job in parts.jobs.list()] == ["queued"]


def test_the_list_follows_and_keeps_the_focus(tab: Any, url: str, worked: Worked) -> None:
    first = worked.submit("first job")
    tab.goto(url)
    tab.locator(f"#j-{first.id}").focus()
    worked.submit("second job")
    tab.get_by_role("link", name="second job").wait_for()
    assert tab.evaluate("() => document.activeElement.id") == f"j-{first.id}"


def test_cost_and_range_before_submitting(tab: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def inspected(app: Any, written: Any, project: str) -> dict[str, Any]:
        return INSPECTED

    monkeypatch.setattr(preview, "inspected", inspected)
    tab.goto(f"{url}/jobs/new")
    tab.get_by_label("Model", exact=True).fill("resnet20_cifar")
    tab.get_by_label("Multiply-adds", exact=True).fill("50")
    tab.get_by_role("button", name="Show cost and range").click()
    tab.get_by_text("40.0 M").wait_for()
    assert tab.url.endswith("/jobs/new")
    assert tab.get_by_text("reachable", exact=False).count()


def test_a_chosen_file_is_looked_at_before_submitting(
    tab: Any, url: str, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def inspected(app: Any, written: Any, project: str) -> dict[str, Any]:
        seen.append((dict(written.values), project))
        return INSPECTED

    monkeypatch.setattr(preview, "inspected", inspected)
    tab.goto(f"{url}/jobs/new")
    tab.get_by_label("Model", exact=True).fill("resnet20_cifar")
    tab.get_by_label("New file of data").set_input_files({"name": "d.npz", "mimeType": "", "buffer": arrays()})
    tab.get_by_role("button", name="Show cost and range").click()
    tab.get_by_text("40.0 M").wait_for()
    (upload,) = parts.uploads.list()
    assert [(values["data"], project) for values, project in seen] == [(f"upload:{upload.id}", "default")]
    assert tab.get_by_label("Data", exact=True).input_value() == f"upload:{upload.id}"
    tab.get_by_role("button", name="Show cost and range").click()  # it is not sent again
    tab.get_by_text("40.0 M").wait_for()
    assert len(parts.uploads.list()) == 1


def test_expected_costs_move_while_a_search_runs(tab: Any, url: str, worked: Worked) -> None:
    claim = running(worked)

    def step(done: int) -> None:
        values = {"loss": 1 / done, "flops_of_limit": 3 - done / 4}
        worked.say(claim, ("Step", {"stage": "search", "done": done, "total": 10, "values": values}))

    step(5)
    tab.goto(f"{url}/jobs/{claim.job.id}")
    title = "Expected multiply-adds in search, as a share of the budget"
    tab.locator("figcaption", has_text=title).wait_for()
    step(6)
    step(8)
    figure = tab.locator("figure", has=tab.locator("figcaption", has_text=title))
    figure.get_by_text("Multiply-adds / budget").wait_for()  # drawn by the script, with its label
    figure.locator(".u-legend .u-value", has_text=re.compile("^1$")).wait_for()  # the last one, of step 8


def test_options_of_other_searches_are_folded_away(tab: Any, url: str) -> None:
    tab.goto(f"{url}/jobs/new")
    tab.get_by_text("Advanced options").click()
    tab.get_by_label("Search method").select_option("figs")
    assert tab.locator("fieldset[data-method=figs]").is_visible()
    assert not tab.locator("fieldset[data-method=oneshot]").is_visible()
    tab.get_by_label("Search method").select_option("oneshot")
    assert tab.locator("fieldset[data-method=oneshot]").is_visible()


def test_a_pick_from_the_front_with_the_slider(tab: Any, url: str, worked: Worked, parts: Services) -> None:
    sweep = worked.swept()
    tab.goto(f"{url}/jobs/{sweep.id}/front")
    slider = tab.get_by_label("Budget, % of the original")
    slider.focus()
    tab.keyboard.press("Home")
    tab.get_by_role("button", name="Pick flops-25pct").wait_for()
    tab.keyboard.press("End")
    tab.get_by_role("button", name="Pick flops-75pct").wait_for()
    assert tab.locator("#budget").input_value() == slider.input_value()
    tab.get_by_role("button", name="Pick flops-75pct").click()
    tab.wait_for_url(lambda place: not place.endswith("/front"))
    picked = parts.jobs.get(tab.url.rpartition("/")[2])
    assert (picked.kind, picked.parent) == ("pick", sweep.id)


@pytest.mark.parametrize("width", [1280, 360])
def test_a_front_of_many_points(tab: Any, url: str, worked: Worked, width: int) -> None:
    rows = {f"flops-{n}-of-1000": (4e4 * n, 0.5 + n / 2500 + (n % 3) / 100) for n in range(5, 1000, 5)}
    sweep = worked.swept(rows=rows)
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(f"{url}/jobs/{sweep.id}/front")
    slider = tab.get_by_label("Budget, % of the original")
    slider.focus()
    for key, taken in (("Home", "flops-5-of-1000"), ("End", "flops-995-of-1000")):
        tab.keyboard.press(key)
        tab.get_by_role("button", name=f"Pick {taken}").wait_for()
        assert tab.evaluate(OVERLAPS) == [], "no label stands on another"
    tab.keyboard.press("ArrowLeft")
    tab.get_by_role("button", name=re.compile("Pick flops-9[0-9]+-of-1000")).wait_for()
    assert tab.locator("figure svg:visible").locator("circle, polygon").count() == len(rows)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_jobs_side_by_side_have_keys_that_are_seen(tab: Any, url: str, worked: Worked) -> None:
    jobs = [worked.done(fake_report(), f"job {number}", {"seed": number}) for number in range(12)]
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.goto(f"{url}/compare?" + "&".join(f"job={job.id}" for job in jobs))
        keys = tab.locator("th svg.key")
        assert keys.count() == 12
        seen = {hashlib.sha256(keys.nth(n).screenshot()).hexdigest() for n in range(12)}
        assert len(seen) == 12, f"keys look alike in {scheme} mode"
        assert tab.evaluate(OVERLAPS) == []


def test_compare_from_the_list(tab: Any, url: str, worked: Worked) -> None:
    worked.done(fake_report(), "first", {"seed": 1})
    worked.done(fake_report(), "second", {"seed": 2})
    tab.goto(url)
    tab.get_by_label("Compare first").check()
    tab.get_by_label("Compare second").check()
    tab.get_by_role("button", name="Compare those ticked").click()
    tab.get_by_role("heading", name="What differs between their recipes").wait_for()
    assert tab.get_by_role("rowheader", name="seed").count() == 1


def test_cancel(tab: Any, url: str, worked: Worked) -> None:
    job = worked.submit("unwanted")
    tab.goto(f"{url}/jobs/{job.id}")
    tab.get_by_role("button", name="Cancel").click()
    tab.get_by_role("button", name="Retry").wait_for()
    assert worked.services.jobs.get(job.id).state == "cancelled"


def test_reading_and_submitting_without_scripts(browser: Any, url: str, worked: Worked, parts: Services) -> None:
    sweep = worked.swept()
    claim = running(worked)
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{url}/jobs/{claim.job.id}")
    assert tab.locator("#curves svg").count() == 1
    tab.goto(f"{url}/jobs/{sweep.id}/front")
    assert not tab.locator("#slider").is_visible()
    tab.locator("#budget").fill("25")
    tab.get_by_role("button", name="Show").click()
    tab.get_by_role("button", name="Pick flops-25pct").click()
    assert parts.jobs.get(tab.url.rpartition("/")[2]).parent == sweep.id
    tab.goto(f"{url}/jobs/new")
    tab.get_by_label("Model", exact=True).fill("resnet20_cifar")
    tab.get_by_label("Multiply-adds", exact=True).fill("50")
    tab.get_by_role("button", name="Submit").click()
    assert parts.jobs.get(tab.url.rpartition("/")[2]).state == "queued"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_can_be_read(
    browser: Any, url: str, worked: Worked, parts: Services, width: int, scheme: str, tmp_path: Path
) -> None:
    """Contrast, nothing wider than the screen, no script that fails, and axe-core's rules where it is installed."""
    done, sweep = worked.done(fake_report(), "finished"), worked.swept()
    other = worked.done(fake_report(), "another")
    worked.submit("fails")
    failed = worked.claim()
    worked.end(failed, "failed", {"kind": "unreachable", "text": "flops can be 10 % at least", "exit_code": 3})
    claim = running(worked)
    places = ["/", "/jobs/new", "/devices", "/uploads", "/login", "/keys", f"/compare?job={done.id}&job={other.id}"]
    places += [f"/jobs/{job}" for job in (done.id, sweep.id, failed.job.id, claim.job.id)]
    places += [f"/jobs/{done.id}/report", f"/jobs/{sweep.id}/front", "/jobs/0000"]
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce", is_mobile=width < 500
    )
    watched = Watched(context.new_page())
    wrong: list[str] = []
    for place in places:
        watched.page.goto(url + place)
        wrong += [f"{place}: contrast of {found}" for found in watched.page.evaluate(CONTRAST)]
        wide = watched.page.evaluate("() => document.documentElement.scrollWidth")
        wrong += [f"{place}: {wide} pixels wide on a screen of {width}"] if wide > width else []
        wrong += [f"{place}: {said}" for said in axe(watched.page)]
    context.close()
    assert wrong == []
    assert watched.errors == []


def axe(page: Any) -> list[str]:
    """What axe-core finds, of WCAG 2.2 up to AA."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        return []
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}}).response["violations"]
    return [f"{each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]
