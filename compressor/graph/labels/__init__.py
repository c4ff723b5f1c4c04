"""Which channels are the same: labels, and how operators carry them."""
