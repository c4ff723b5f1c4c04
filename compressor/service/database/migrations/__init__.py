"""What Alembic runs: the environment, and revisions in ``versions``."""
