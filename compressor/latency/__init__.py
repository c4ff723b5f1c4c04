"""Latency on a target: measuring a model's operators into a table, calibrating, and checking budgets on the device."""
