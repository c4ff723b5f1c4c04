"""How budgets and wishes are met, whatever the method."""
