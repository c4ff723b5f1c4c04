"""A job as the user asks for it, and its run in a folder."""
