"""Files that are there whole or not at all, locks, and the stages of a job on disk."""
