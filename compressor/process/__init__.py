"""What the threads and processes of one job share."""
