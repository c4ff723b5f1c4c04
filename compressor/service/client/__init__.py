"""A service from another program: submit jobs, watch them, fetch what they made. Needs the extra ``client``."""

from __future__ import annotations

from compressor.service.client.client import Client
from compressor.service.client.job import Job

__all__ = ["Client", "Job"]
