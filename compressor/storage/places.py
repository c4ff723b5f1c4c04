"""Where things lie unless the user says otherwise. Imports nothing: the command line starts with this."""

#: The folder of jobs that name none.
DEFAULT_FOLDER = "compressed"

RECIPE, EVENTS, TRACKING = "recipe.yaml", "events.jsonl", "tracking"
"""What a job writes into its folder before it has stored anything, so they claim no folder."""
