"""Pages as a browser gets them, what a form sends, and a job at work to look at."""

from __future__ import annotations

import re
from typing import Any

from starlette.testclient import TestClient

from tests.service.page.checked import wrong_with
from tests.service.page.worked import Worked

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
TOKEN = re.compile(r'name="csrf_token" value="([0-9a-f]+)"')


def look(client: TestClient, place: str, status: int = 200, *, whole: bool = True) -> str:
    answer = client.get(place, headers={"Accept": "text/html"})
    assert answer.status_code == status, answer.text[:2000]
    if status != 204:
        assert answer.headers["content-type"].startswith("text/html")
        assert wrong_with(answer.text, whole=whole) == []
        assert HOSTILE not in answer.text
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text
    return answer.text


def post(client: TestClient, place: str, data: dict[str, Any] | None = None, **more: Any) -> Any:
    token = TOKEN.search(client.get("/jobs/new").text)
    assert token is not None
    return client.post(place, data={"csrf_token": token[1], **(data or {})}, **more)


def running(worked: Worked) -> Any:
    worked.submit("in work")
    claim = worked.claim()
    worked.say(
        claim,
        ("JobBegan", {"name": "in work"}),
        ("StageBegan", {"stage": "load"}),
        ("StageEnded", {"stage": "load", "seconds": 0.4}),
        ("StageBegan", {"stage": "finetune"}),
        ("TrainingBegan", {"stage": "finetune", "done": 0, "total": 10}),
        *[("Step", {"stage": "finetune", "done": n, "total": 10, "values": {"loss": 1 / n}}) for n in range(1, 5)],
        ("Metric", {"of": "before", "name": "top-1 accuracy", "value": 0.9, "split": "test", "samples": 100}),
        ("Decision", {"costs": {"flops": 2e7}, "units": 3, "all_units": 6, "blocks": 1, "all_blocks": 2}),
        ("Warned", {"text": "Be careful."}),
    )
    worked.services.leases.renew(claim.job.id, claim.token, stage="finetune", done=4, total=10)
    return claim
