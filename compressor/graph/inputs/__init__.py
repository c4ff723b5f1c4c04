"""Which axes of a model's inputs hold examples, and the same inputs in other sizes."""
