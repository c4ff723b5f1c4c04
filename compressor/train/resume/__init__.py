"""What training needs to go on after a kill."""
