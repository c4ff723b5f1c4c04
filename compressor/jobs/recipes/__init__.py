"""Recipes: a job's settings in a file, YAML or JSON, under the names that its options have.

What a recipe may say is declared nowhere else: its keys are the fields of ``JobConfig`` and of the search methods'
options, and these check it.
"""
