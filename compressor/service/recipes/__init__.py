"""What a recipe may say to a service, and what it becomes on a worker. Nothing here imports torch."""

from compressor.service.recipes.places import replaced
from compressor.service.recipes.policy import Policy, Submission, submission_of
from compressor.service.recipes.reading import MOST_BYTES, Written, read_body

__all__ = ["MOST_BYTES", "Policy", "Submission", "Written", "read_body", "replaced", "submission_of"]
