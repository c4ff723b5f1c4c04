"""Exports, timing and int8."""
