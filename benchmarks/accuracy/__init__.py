"""Accuracy at equal cost and equal training."""
