"""The HTTP service: routes below ``/v1``, health and metrics. Needs the extra ``serve``."""
