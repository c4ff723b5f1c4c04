"""Which models are compressed exactly."""
