"""How searches train."""
