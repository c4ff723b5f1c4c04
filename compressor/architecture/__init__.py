"""The decision, as a noun: what goes, what changes, and how that is applied to a fresh original."""
