"""Interpolation of latencies, and where to measure next."""
