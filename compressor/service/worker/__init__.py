"""The worker: takes jobs over HTTP, runs each in a process of its own, and hands back what it made."""
