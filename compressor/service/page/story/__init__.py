"""What happened in a job, folded from its events."""
