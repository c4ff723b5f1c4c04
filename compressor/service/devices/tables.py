"""Tables of devices: who they are, what is to be measured, and what was."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from compressor.service.database.base import Base


class DeviceRow(Base):
    """A device by the name of its agent. ``fingerprint`` is that of the first machine that came under this name.

    ``agent`` is the process that answers for it, ``threads`` how many it takes where a job says nothing.
    """

    __tablename__ = "devices"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text)
    runtime: Mapped[str] = mapped_column(Text)
    runtime_version: Mapped[str] = mapped_column(Text)
    threads: Mapped[int]
    version: Mapped[str] = mapped_column(Text)
    agent: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class DeviceSessionRow(Base):
    """A job's use of a device, as long as the job's lease (``token``) lives."""

    __tablename__ = "device_sessions"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    device: Mapped[str] = mapped_column(Text, ForeignKey("devices.name", ondelete="CASCADE"), index=True)
    job_id: Mapped[str] = mapped_column(Text, ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    token: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    served_at: Mapped[datetime | None]
    """When the device last took a command of it: who waits longest is next."""


class DeviceCommandRow(Base):
    """One measurement. ``key`` is the asker's own name for it: what is asked again is not measured twice.

    ``lease`` proves that an agent has it, ``renewed_at`` is when that agent was last heard of, ``losses`` counts the
    agents that vanished over it.
    """

    __tablename__ = "device_commands"
    __table_args__ = (
        UniqueConstraint("session_id", "key"),
        Index("ix_device_commands_device_state", "device", "state"),
    )
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    session_id: Mapped[str] = mapped_column(Text, ForeignKey("device_sessions.id", ondelete="CASCADE"))
    device: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    request: Mapped[dict[str, Any]]
    files: Mapped[list[str]]
    cache_key: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    lease: Mapped[str | None] = mapped_column(Text)
    renewed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    losses: Mapped[int]


class DeviceTargetRow(Base):
    """A target of latency tables, by the hash of its key. ``reference_ms`` is the unit of its rows' times."""

    __tablename__ = "device_targets"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text, index=True)
    reference_ms: Mapped[float]


class DevicePointRow(Base):
    """A measured point of a target's table; columns as in ``lut.Measurement``."""

    __tablename__ = "device_rows"
    target_id: Mapped[str] = mapped_column(Text, ForeignKey("device_targets.id", ondelete="CASCADE"), primary_key=True)
    signature_id: Mapped[str] = mapped_column(Text, primary_key=True)
    channels_in: Mapped[int] = mapped_column(primary_key=True)
    channels_out: Mapped[int] = mapped_column(primary_key=True)
    signature: Mapped[str] = mapped_column(Text)
    median_ms: Mapped[float | None]
    spread: Mapped[float]
    repeats: Mapped[int]
    status: Mapped[str] = mapped_column(Text)
    error: Mapped[str] = mapped_column(Text)
    measured_at: Mapped[str] = mapped_column(Text)


class DeviceCalibrationRow(Base):
    """The calibration of a network's class on a target, as ``lut.Calibration`` is written."""

    __tablename__ = "device_calibrations"
    target_id: Mapped[str] = mapped_column(Text, ForeignKey("device_targets.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    body: Mapped[str] = mapped_column(Text)


class DeviceResultRow(Base):
    """What timing certain files on a certain device gave, by the hash of all that decides it."""

    __tablename__ = "device_results"
    cache_key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text, index=True)
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
