"""The queue: durable jobs, leases of workers, what happens in jobs, their files, and what goes with time."""
