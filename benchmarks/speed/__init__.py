"""What tracing, trimming and search steps cost."""
