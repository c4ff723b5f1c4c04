"""The search methods, each in a folder of its own."""
