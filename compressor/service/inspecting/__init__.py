"""What a recipe's model costs, and can be brought to, before anything is trained: traced in a bounded process."""
