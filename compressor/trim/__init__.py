"""Physical trimming: plan, apply, verify."""

from compressor.trim.apply import trim
from compressor.trim.check import TOLERANCE, Check, TrimResult
from compressor.trim.exact import trim_verified
from compressor.trim.plan import plan
from compressor.trim.verify import Verifier

__all__ = ["TOLERANCE", "Check", "TrimResult", "Verifier", "plan", "trim", "trim_verified"]
