"""Plug-ins by name, and the user's own code by name."""
