"""One supernet for many budgets, with learned boundaries of its search space."""
