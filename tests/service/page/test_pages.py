"""Every page in its states: it says what it should, is well-formed and labelled, and nothing becomes markup."""

from __future__ import annotations

import re

from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.page.pictures.marks import mark_of
from compressor.service.records import NewJob
from compressor.service.services import Services
from tests.report.fake_report import fake_report
from tests.service.page.checked import wrong_with
from tests.service.page.looking import HOSTILE, look, post, running
from tests.service.page.worked import RECIPE, Worked


def test_an_empty_service(client: TestClient) -> None:
    for place in ("/", "/jobs/new", "/compare", "/devices", "/uploads", "/login", "/keys"):
        look(client, place)
    assert "No job yet" in look(client, "/")


def test_the_list(client: TestClient, worked: Worked) -> None:
    worked.done(fake_report(), "finished")
    running(worked)
    waiting = worked.submit("waiting")
    text = look(client, "/")
    for said in ("finished", "in work", "waiting", "finetune", "4 of 10", "queued"):
        assert said in text
    assert text.index("waiting") < text.index("in work") < text.index("finished"), "the newest first"
    assert "in work" not in look(client, "/?state=queued")
    assert "waiting" in look(client, "/?state=queued")
    assert "in work" not in look(client, "/?q=finis")
    assert "No job is like that" in look(client, "/?q=nothing-like-that")
    assert f"/jobs/{waiting.id}" in text


def test_the_list_is_sent_again_only_where_it_changed(client: TestClient, worked: Worked) -> None:
    worked.submit("first")
    address = re.search(r'hx-get="([^"]+)"', look(client, "/"))
    assert address is not None
    again = address[1].replace("&amp;", "&")
    assert client.get(again).status_code == 204
    worked.submit("second")
    changed = client.get(again)
    assert changed.status_code == 200
    assert "second" in changed.text
    assert wrong_with(changed.text, whole=False) == []


def test_pages_of_the_list(client: TestClient, worked: Worked) -> None:
    for number in range(55):
        worked.submit(f"job number {number:03}")
    text = look(client, "/")
    assert "job number 054" in text
    assert "job number 004" not in text
    older = re.search(r'<a href="([^"]+)" rel="next"', text)
    assert older is not None
    text = look(client, older[1].replace("&amp;", "&"))
    assert "job number 004" in text
    assert "job number 054" not in text


def test_without_the_token_nothing_is_done(client: TestClient, worked: Worked, parts: Services) -> None:
    job = worked.submit("a job")
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 403
    assert client.post("/jobs/new", data={"csrf_token": "0" * 64, "model": "x"}).status_code == 403
    assert parts.jobs.get(job.id).state == "queued"


def test_nothing_that_anybody_named_becomes_markup(client: TestClient, worked: Worked) -> None:
    worked.submit(HOSTILE, {"include": [HOSTILE]}, submitted_by=f"key:{HOSTILE}")
    claim = worked.claim()
    worked.say(
        claim,
        ("JobBegan", {"name": HOSTILE, "folder": f"/x/{HOSTILE}"}),
        ("JobBegan", {"name": HOSTILE, "folder": f"/x/{HOSTILE}"}),
        ("StageBegan", {"stage": HOSTILE}),
        ("TrainingBegan", {"stage": HOSTILE, "done": 0, "total": 3}),
        ("Step", {"stage": HOSTILE, "done": 1, "total": 3, "values": {HOSTILE: 1.0}}),
        ("Step", {"stage": HOSTILE, "done": 2, "total": 3, "values": {HOSTILE: 2.0}}),
        ("Metric", {"of": HOSTILE, "name": HOSTILE, "value": 0.9, "split": HOSTILE, "samples": 3}),
        ("Decision", {"costs": {HOSTILE: 1.0}, "units": 1, "all_units": 1, "blocks": 1, "all_blocks": 1}),
        ("TrialEnded", {"number": 1, "count": 2, "settings": {HOSTILE: 1}, "lost": HOSTILE, "score": None}),
        ("Message", {"text": HOSTILE}),
        ("Warned", {"text": HOSTILE}),
    )
    worked.services.leases.renew(claim.job.id, claim.token, stage=HOSTILE, done=1, total=3, waiting_for=HOSTILE)
    place = f"/jobs/{claim.job.id}"
    for each in ("/", place, f"/jobs/new?from={claim.job.id}", f"/compare?job={claim.job.id}", "/devices"):
        look(client, each)
    worked.end(claim, "failed", {"kind": "other", "text": HOSTILE, "exit_code": 1})
    for each in ("/", place, f"/?q={HOSTILE}", f"/login?next={HOSTILE}", f"/jobs/{HOSTILE}", f"/?state={HOSTILE}"):
        answer = client.get(each, headers={"Accept": "text/html"})
        assert HOSTILE not in answer.text
        assert "<script>alert" not in answer.text
        assert wrong_with(answer.text) == [] or answer.status_code >= 400
    # What went through a report or a front is data of a worker, too.
    report = fake_report()
    report.model = report.search = report.weights = HOSTILE
    report.warnings = [HOSTILE]
    done = worked.done(report, HOSTILE)
    other = worked.done(report, HOSTILE, {"include": [HOSTILE]})
    look(client, f"/jobs/{done.id}")
    look(client, f"/jobs/{done.id}/report")
    look(client, f"/compare?job={done.id}&job={other.id}")


def test_compare(client: TestClient, worked: Worked) -> None:
    first = worked.done(fake_report(), "first", {"seed": 1})
    second = worked.done(fake_report(), "second", {"seed": 2, "lr": 0.1})
    text = look(client, f"/compare?job={first.id}&job={second.id}")
    assert text.count('role="img"') == 2, "one for wide screens, one for narrow ones"
    assert "<code>seed</code>" in text
    assert "<code>lr</code>" in text
    assert "<code>model</code>" not in text, "in what is the same nothing differs"
    assert "against latency" in text
    assert "against multiply-adds" in look(client, f"/compare?job={first.id}&job={second.id}&cost=flops")
    queued = worked.submit("third")
    assert "the job is queued" in look(client, f"/compare?job={first.id}&job={queued.id}")
    look(client, f"/compare?job={first.id}&job=0000", 404)
    many = "&".join(f"job={n}" for n in range(13))
    look(client, f"/compare?{many}", 422)


def test_a_front_and_a_pick(client: TestClient, worked: Worked, parts: Services) -> None:
    sweep = worked.swept()
    place = f"/jobs/{sweep.id}"
    assert "3 networks" in look(client, place)
    text = look(client, f"{place}/front?cost=flops&budget=50&unit=%25")
    assert "<strong>flops-50pct</strong>" in text
    assert "<strong>flops-25pct</strong>" in look(client, f"{place}/front/choice?budget=49.9&unit=%25", whole=False)
    assert "flops-75pct</strong>" in look(client, f"{place}/front/choice?budget=30M", whole=False)
    assert "No network is within the budget" in look(client, f"{place}/front/choice?budget=1&unit=%25", whole=False)
    assert "Cannot read" in look(client, f"{place}/front?budget={HOSTILE}")
    answer = post(client, f"{place}/pick", {"cost": "flops", "budget": "50%", "unit": "", "export": "onnx"})
    assert answer.status_code == 303
    picked = parts.jobs.get(answer.headers["location"].rpartition("/")[2])
    assert (picked.kind, picked.parent) == ("pick", sweep.id)
    assert picked.recipe["budgets"] == {"flops": "50%"}
    assert picked.recipe["export"] == ["onnx"]
    assert "Begins at" in look(client, f"/jobs/{picked.id}")
    assert post(client, f"{place}/pick", {"cost": "flops", "budget": "1%"}).status_code == 422
    look(client, f"/jobs/{picked.id}/front", 404)


def test_a_pick_that_is_sent_twice_is_one_job(client: TestClient, worked: Worked, parts: Services) -> None:
    place = f"/jobs/{worked.swept().id}"
    shown = [look(client, f"{place}/front"), look(client, f"{place}/front/choice?budget=50&unit=%25", whole=False)]
    first, second = (re.findall(r'name="once" value="(\w+)"', text) for text in shown)
    assert len(first) == len(second) == 1
    assert first != second
    form = {"cost": "flops", "budget": "50%", "unit": "", "export": "onnx", "once": first[0]}
    made = [post(client, f"{place}/pick", form).headers["location"] for _ in range(3)]
    assert len(set(made)) == 1
    changed = post(client, f"{place}/pick", {**form, "budget": "75%"})
    assert changed.status_code == 422
    assert "sent before" in changed.text
    assert first[0] not in changed.text, "sent again, it becomes another job"
    assert post(client, f"{place}/pick", {**form, "once": second[0]}).headers["location"] not in made
    assert len([job for job in parts.jobs.list() if job.kind == "pick"]) == 2


def test_jobs_of_other_projects_are_not_there(client: TestClient, worked: Worked, parts: Services) -> None:

    job = parts.jobs.submit(NewJob(project="others", recipe=RECIPE, name="secret"))
    assert "secret" not in look(client, "/")
    for place in ("", "/live", "/report", "/front", "/curves.json"):
        assert client.get(f"/jobs/{job.id}{place}").status_code == 404
    assert client.get(f"/compare?job={job.id}").status_code == 404
    for action in ("cancel", "retry", "delete", "pick", "priority"):
        data = {"sure": "yes", "priority": "1", "budget": "50%"}
        assert post(client, f"/jobs/{job.id}/{action}", data).status_code == 404
    assert client.get(f"/jobs/new?from={job.id}").status_code == 404


def test_static_files(client: TestClient) -> None:
    text = client.get("/").text
    for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', text):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        tag = answer.headers["etag"]
        assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/static/nothing.js").status_code == 404
    assert client.get("/static/../templates/base.html").status_code in (400, 404)
    assert client.get("/favicon.ico").headers["content-type"].startswith("image/svg")


def test_keys_are_made_shown_once_and_revoked(client: TestClient, app: FastAPI) -> None:
    answer = post(client, "/keys", {"name": "ci", "project": "default", "scope": "read"})
    assert answer.status_code == 200
    secret = re.search(r"cmpr_[\w-]+", answer.text)
    assert secret is not None
    assert app.state.access.check_key(secret[0], "127.0.0.1").scopes == {"read"}
    assert client.get("/", headers={"Accept": "text/html"}).headers["location"].startswith("/login"), "now it is closed"
    mine = {"Authorization": f"Bearer {secret[0]}", "Accept": "text/html"}
    assert client.get("/keys", headers=mine).status_code == 403
    assert client.get("/jobs/new", headers=mine).status_code == 403
    text = client.get("/", headers=mine).text
    assert "/jobs/new" not in text
    assert wrong_with(text) == []


def test_a_mistake_in_a_key_stands_at_its_field(client: TestClient) -> None:
    answer = post(client, "/keys", {"name": "<b>", "scope": "read"})
    assert answer.status_code == 422
    assert "&lt;b&gt;" in answer.text
    assert wrong_with(answer.text) == []


def test_errors_are_pages(client: TestClient) -> None:
    text = look(client, "/jobs/00000000000000000000", 404)
    assert "Not Found" in text
    assert "All jobs" in text
    fragment = client.get("/jobs/00000000000000000000/live", headers={"HX-Request": "true"})
    assert fragment.status_code == 404
    assert fragment.headers["content-type"] == "application/problem+json", "live.js shows its detail in the page"


def test_commands_name_the_address_that_the_page_was_asked_under(client: TestClient) -> None:
    for place in ("/", "/devices"):
        text = client.get(place, headers={"Accept": "text/html", "Host": "localhost:9000"}).text
        assert "--server http://localhost:9000 " in text
        assert "--server URL" not in text


def test_twelve_jobs_side_by_side_are_told_apart(client: TestClient, worked: Worked) -> None:
    jobs = [worked.done(fake_report(), f"job {number}", {"seed": number}) for number in range(12)]
    text = look(client, "/compare?" + "&".join(f"job={job.id}" for job in jobs))
    keys = re.findall(r'<svg class="key"[^>]*>(.*?)</svg>', text)
    assert len(keys) == len(set(keys)) == 12
    for colour, shape in {(a, b) for a in range(7) for b in range(4)}:
        number = next(n for n in range(28) if (n % 7, n % 4) == (colour, shape))
        mark, after = mark_of(number), mark_of(number + 1)
        assert mark.colour != after.colour
        assert mark.shape != after.shape
    assert len({mark_of(number) for number in range(28)}) == 28
