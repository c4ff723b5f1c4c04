"""What every table is made of. Imports no other part of the service: rooms with tables of their own stand on this."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

Json = JSON(none_as_null=True)
"""JSON values, whose objects keep the order of their keys (Postgres' JSONB would not); None is NULL."""
BigId = BigInteger().with_variant(Integer, "sqlite")
"""Numbers that the database gives; SQLite gives them to INTEGER alone."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware times, in UTC. SQLite stores them without a zone, so that texts sort as times do."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses naive times, which could be of any zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables, also those of other rooms: one metadata, one history of migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[str]: Json}  # noqa: RUF012


def new_id(now: datetime) -> str:
    """20 hexadecimal digits that sort by time: 11 of milliseconds, 9 at random."""
    return f"{int(now.timestamp() * 1000):011x}{secrets.token_hex(5)[:9]}"
