"""Timing of single operators."""
