"""One forward pass, written down."""
