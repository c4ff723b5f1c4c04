"""The service: a durable queue of jobs behind HTTP, for one laptop or an organisation. Needs the extra ``serve``."""
