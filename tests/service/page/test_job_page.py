"""The page of a job in its states: what it says, what its buttons do, and what follows it to its end."""

from __future__ import annotations

import json
import re

import pytest
from starlette.testclient import TestClient

from compressor.service.records import NewJob
from compressor.service.services import Services
from tests.report.fake_report import fake_report
from tests.service.page.checked import wrong_with
from tests.service.page.looking import look, post, running
from tests.service.page.worked import RECIPE, Worked


def test_a_job_that_waits(client: TestClient, worked: Worked) -> None:
    job = worked.submit("a name")
    text = look(client, f"/jobs/{job.id}")
    assert "Waits for a worker" in text
    assert 'id="cancel"' in text
    assert 'id="priority"' in text
    assert "resnet20_cifar" in text


def test_a_job_at_work_and_what_changes(client: TestClient, worked: Worked) -> None:
    claim = running(worked)
    place = f"/jobs/{claim.job.id}"
    text = look(client, place)
    for said in ("finetune", "Step 4 of 10", "loss in finetune", "Be careful.", "top-1 accuracy", "3 of 6 units"):
        assert said in text
    again = re.search(r'hx-get="([^"]+)"', text)
    assert again is not None
    assert client.get(again[1].replace("&amp;", "&")).status_code == 204
    worked.say(claim, ("Step", {"stage": "finetune", "done": 5, "total": 10, "values": {"loss": 0.2}}))
    changed = client.get(again[1].replace("&amp;", "&"))
    assert changed.status_code == 200
    assert wrong_with(changed.text, whole=False) == []
    curves = client.get(f"{place}/curves.json").json()
    (curve,) = curves["curves"]
    assert (curve["key"], curve["steps"], curve["values"]) == (
        "finetune/loss",
        [1, 2, 3, 4, 5],
        [1.0, 0.5, 1 / 3, 0.25, 0.2],
    )
    assert client.get(f"{place}/curves.json?seen={curves['seen']}").status_code == 204


def test_expected_costs_are_drawn_beside_the_loss(client: TestClient, worked: Worked) -> None:
    claim = running(worked)
    for done in (6, 7, 8):
        values = {"loss": 1 / done, "flops_of_limit": 3 - done / 4, "odd_of_limit": 1.0}
        worked.say(claim, ("Step", {"stage": "search", "done": done, "total": 10, "values": values}))
    text = look(client, f"/jobs/{claim.job.id}")
    for said in (
        "Expected multiply-adds in search, as a share of the budget",
        "Expected odd in search",
        "1.5 at step 6",
    ):
        assert said in text, "it is read without scripts"
    found = {curve["key"]: curve for curve in client.get(f"/jobs/{claim.job.id}/curves.json").json()["curves"]}
    curve = found["search/flops_of_limit"]
    assert (curve["quantity"], curve["values"]) == ("Multiply-adds / budget", [1.5, 1.25, 1.0])
    assert found["search/loss"]["title"] == "loss in search"


def test_a_job_that_is_done(client: TestClient, worked: Worked) -> None:
    report = fake_report()
    job = worked.done(report, "finished")
    text = look(client, f"/jobs/{job.id}")
    assert "Whole report" in text
    assert f'href="/v1/jobs/{job.id}/files/model.onnx"' in text
    assert "hx-get" not in text.partition('id="live"')[2].partition(">")[0], "it asks no more"
    assert client.get(f"/v1/jobs/{job.id}/files/model.onnx").content == b"onnx"
    whole = look(client, f"/jobs/{job.id}/report")
    assert report.model in whole
    assert "<svg" in whole
    assert " style=" not in whole


def test_a_job_that_failed_says_why_and_what_helps(client: TestClient, worked: Worked) -> None:
    job = worked.submit("fails")
    claim = worked.claim()
    worked.end(claim, "failed", {"kind": "unreachable", "text": "flops can be 10 % at least", "exit_code": 3})
    text = look(client, f"/jobs/{job.id}")
    assert "flops can be 10 % at least" in text
    assert "larger budget" in text
    assert 'id="retry"' in text


def test_what_buttons_do(client: TestClient, worked: Worked, parts: Services) -> None:
    job = worked.submit("a job")
    place = f"/jobs/{job.id}"
    assert post(client, f"{place}/priority", {"priority": "7"}).headers["location"] == place
    assert parts.jobs.get(job.id).priority == 7
    assert post(client, f"{place}/priority", {"priority": "soon"}).status_code == 422
    assert post(client, f"{place}/cancel").status_code == 303
    assert parts.jobs.get(job.id).state == "cancelled"
    assert post(client, f"{place}/retry").status_code == 303
    assert parts.jobs.get(job.id).state == "queued"
    assert post(client, f"{place}/retry").status_code == 409
    post(client, f"{place}/cancel")
    assert post(client, f"{place}/delete").status_code == 422, "the box was not checked"
    assert post(client, f"{place}/delete", {"sure": "yes"}).headers["location"] == "/"
    look(client, place, 404)


@pytest.mark.parametrize("name", ["report.json", "front.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"schema_version": 99}', b"\xff\xfe", b"null"])
def test_a_job_whose_documents_are_damaged_is_shown_all_the_same(
    client: TestClient, worked: Worked, name: str, content: bytes
) -> None:
    job = worked.submit("damaged")
    claim = worked.claim()
    worked.leave_all(claim, {name: content, "model.onnx": b"onnx"})
    worked.end(claim)
    assert "model.onnx" in look(client, f"/jobs/{job.id}")
    look(client, f"/compare?job={job.id}&job={worked.submit('other').id}")


def test_the_recipe_is_shown_as_it_was_sent(client: TestClient, worked: Worked) -> None:
    job = worked.submit("a job")
    text = look(client, f"/jobs/{job.id}")
    for line in json.dumps(RECIPE, indent=2).splitlines():
        assert line.replace('"', "&#34;") in text


def test_a_recipe_in_a_single_line_is_shown_in_lines(client: TestClient, worked: Worked) -> None:
    sent = {"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": "50%"}}
    job = worked.services.jobs.submit(NewJob("default", sent, recipe_text=json.dumps(sent)))
    shown = look(client, f"/jobs/{job.id}").partition("<pre")[2].partition("</pre>")[0]
    assert "weights: none\n" in shown
    assert "{" not in shown.partition("<code>")[2]


@pytest.mark.parametrize(("code", "changes"), [(1, False), (2, True), (3, True), (4, True), (5, False), ("3", False)])
def test_what_a_retry_cannot_mend_is_to_be_changed_first(
    client: TestClient, worked: Worked, code: object, changes: bool
) -> None:
    worked.submit("fails")
    claim = worked.claim()
    worked.end(claim, "failed", {"kind": "other", "text": "It did not work.", "exit_code": code})
    actions = look(client, f"/jobs/{claim.job.id}").partition('class="actions"')[2].partition("</div>")[0]
    assert (f"/jobs/new?from={claim.job.id}" in actions) == changes
    assert 'id="retry"' in actions


def test_what_changes_at_the_end_of_a_job_is_in_what_is_asked_for_again(client: TestClient, worked: Worked) -> None:
    claim = running(worked)
    place = f"/jobs/{claim.job.id}/live"
    before = look(client, place, whole=False)
    assert "not yet" in before
    assert "Delete this job" not in before
    for number in range(20):
        worked.say(
            claim, ("StageBegan", {"stage": f"s{number}"}), ("StageEnded", {"stage": f"s{number}", "seconds": 1})
        )
    worked.end(claim)
    after = look(client, place, whole=False)
    assert "not yet" not in after
    assert "Delete this job" in after
    assert "12 earlier stages" in after
    assert "<span>s0\n" in after, "folded, and all there"


def test_a_pick_has_no_model_of_its_own_to_name(client: TestClient, worked: Worked) -> None:
    job = worked.services.jobs.submit(NewJob("default", {"budgets": {"flops": "50%"}}, kind="pick", name="a pick"))
    assert '<p class="sub">in default · submitted' in look(client, f"/jobs/{job.id}")
