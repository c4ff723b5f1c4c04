"""Several networks for several budgets as one job with one folder."""
