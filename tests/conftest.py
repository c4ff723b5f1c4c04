"""One thread per process: the networks here are small, tests may run side by side, and sums come out the same."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start, too


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
