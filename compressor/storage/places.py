"""Where things lie unless the user says otherwise. Imports nothing: the command line starts with this."""

#: The folder of jobs that name none.
DEFAULT_FOLDER = "compressed"
