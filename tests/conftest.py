"""One thread per process: the networks here are small, tests may run side by side, and sums come out the same.

Generated examples are the same in every run; `HYPOTHESIS_PROFILE=explore` looks for new ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start, too
# Networks there stand for a user's own modules: ``job_networks:plain``.
sys.path.append(str(Path(__file__).parent / "cli"))


def pytest_configure() -> None:
    import torch
    from hypothesis import settings

    settings.register_profile("same", derandomize=True, deadline=None)
    settings.register_profile("explore", deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

    torch.set_num_threads(1)
