"""Storage and sharing of latency tables."""
