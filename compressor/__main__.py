"""``python -m compressor`` is the same as ``compress``."""

from __future__ import annotations

import sys

from compressor.cli import main

sys.exit(main())
