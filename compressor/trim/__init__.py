"""Physical trimming: plan, apply, verify."""

from compressor.trim.apply import trim
from compressor.trim.plan import plan
from compressor.trim.verify import TOLERANCE, Check, TrimResult, Verifier, trim_verified

__all__ = ["TOLERANCE", "Check", "TrimResult", "Verifier", "plan", "trim", "trim_verified"]
