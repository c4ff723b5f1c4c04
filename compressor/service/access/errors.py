"""What the guard refuses beside what others refuse, too."""

from __future__ import annotations

from compressor.service.errors import ServiceError


class BadRequestError(ServiceError):
    """A request that no honest client sends: no host, a path that climbs."""

    status = 400


class MediaTypeError(ServiceError):
    """A body of a kind that forms of any site can send, where the API wants JSON."""

    status = 415
    exit_code = 2


class SlowRequestError(ServiceError):
    """A body that does not come."""

    status = 408
