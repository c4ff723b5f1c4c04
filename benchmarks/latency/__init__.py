"""Latency: predictions, budgets, engines, widths."""
