"""One file per data set or format that ``--data`` can name."""
