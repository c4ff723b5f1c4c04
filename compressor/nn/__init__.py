"""Modules that a compressed network may hold, and tools on modules."""
