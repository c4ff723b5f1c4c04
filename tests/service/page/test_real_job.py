"""From the page to a network in ONNX Runtime: the real server, a real worker, a real browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.service.page.browser import Watched, started

pytestmark = pytest.mark.slow
SECONDS = 400


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "compressor", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPRESSOR_")}
    log = tmp_path / "log"
    with log.open("w+") as stream:
        server = subprocess.Popen(command, stderr=stream, stdout=stream, env=environment, start_new_session=True)
        try:
            yield _address(server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                pytest.fail("the server did not stop when it was told to")


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found is not None:
            return found[0]
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    pytest.fail(f"the server did not start: {log.read_text()}")


def test_a_job_from_the_page_ends_in_onnx_runtime(url: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    with started() as browser:
        context = browser.new_context()
        watched = Watched(context.new_page())
        tab = watched.page
        tab.set_default_timeout(SECONDS * 1000)
        tab.goto(f"{url}/jobs/new")
        tab.get_by_label("Model", exact=True).fill("resnet20_cifar")
        tab.get_by_label("Weights", exact=True).fill("none")
        tab.get_by_label("Multiply-adds", exact=True).fill("50")
        tab.get_by_label("Search method").select_option("oneshot")
        tab.get_by_text("Advanced options").click()
        tab.get_by_label("Seconds of timing").fill("0")
        tab.get_by_role("button", name="Show cost and range").click()
        tab.locator("#preview section").wait_for()
        shown = tab.locator("#preview").inner_text()
        assert "reachable" in shown or "took longer" in shown, shown  # a busy machine may need more than its time
        tab.get_by_role("button", name="Submit").click()
        tab.wait_for_url(re.compile(r"/jobs/[0-9a-f]{20}$"))
        tab.locator("#live .badge", has_text=re.compile("done|failed|cancelled")).first.wait_for()
        assert tab.locator("#live .badge", has_text="done").count(), tab.locator("#live").inner_text()
        with tab.expect_download() as download:
            tab.get_by_role("link", name="model.onnx", exact=True).click()
        file = tmp_path / "model.onnx"
        download.value.save_as(file)
        tab.get_by_role("link", name="Whole report").click()
        tab.get_by_role("heading", name="resnet20_cifar").wait_for()
        assert watched.errors == []
        context.close()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 2 for size in given.shape]
    (scores,) = session.run(None, {given.name: np.zeros(shape, np.float32)})
    assert scores.shape[0] == shape[0]
    assert np.isfinite(scores).all()
