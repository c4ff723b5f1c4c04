"""Contents by their SHA-256, in a folder or a bucket, and what users upload."""
