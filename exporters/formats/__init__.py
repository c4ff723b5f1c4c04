"""One file per deployment format."""
