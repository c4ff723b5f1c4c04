"""Debian's Chromium under Playwright, and the page served on a real port."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """The browser's program; skips the test where there is none."""
    found = next((place for name in NAMES if (place := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium here; apt-get install chromium")
    return found


@contextmanager
def started() -> Iterator[Any]:
    """A browser without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = chromium()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app on a port of its own, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    patience = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < patience, "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    app.state.closing.set()
    server.should_exit = True
    thread.join(20)


class Watched:
    """A tab whose errors fail the test: scripts that throw, and what the content policy refuses."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def _said(self, message: Any) -> None:
        refused = "Content Security Policy" in message.text or "Refused to" in message.text
        if refused or (message.type == "error" and "Failed to load resource" not in message.text):
            self.errors.append(message.text)
