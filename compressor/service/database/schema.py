"""All tables of the service: whoever wants them all imports this."""

from __future__ import annotations

from sqlalchemy import MetaData

from compressor.service.database import tables
from compressor.service.database.base import Base
from compressor.service.devices import tables as device_tables

TABLES = (tables, device_tables)
METADATA: MetaData = Base.metadata
"""Of every table that these modules declare."""
