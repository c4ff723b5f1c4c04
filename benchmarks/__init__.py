"""Benchmarks: each a script with the table that it made. Run them from the root of the repository, as modules."""
