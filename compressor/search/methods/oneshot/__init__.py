"""One-shot search: no training."""
