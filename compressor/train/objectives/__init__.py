"""What training aims at, and how it is scored."""
