"""The form of a new job: its fields, made of the options' declarations, and the recipe that comes of them."""
