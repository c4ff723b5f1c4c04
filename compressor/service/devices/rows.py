"""The latency tables of devices: every point that any job had measured serves all later ones.

Times stand in a unit, the target's ``reference_ms``, as in ``lut.LatencyTable``: where the reference turns out to take
clearly less, all times of the target are given anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from compressor.service.devices.tables import DeviceCalibrationRow, DevicePointRow, DeviceResultRow, DeviceTargetRow
from compressor.service.errors import RefusedError
from lut import Calibration, InvalidKeyError, Measurement, Signature, Target
from profilers.reference import SLOW

_NAMES = ("channels_in", "channels_out", "median_ms", "spread", "repeats", "status", "error", "measured_at")


def store_point(
    session: Session,
    target: Target,
    reference_ms: float,
    signature: Signature,
    point: tuple[int, int],
    took: Measurement,
) -> None:
    """Keep one point, under the rule of ``LatencyTable.put``: a good one is replaced by a good one only.

    Args:
        reference_ms: the unit of ``took``.
    """
    row = _anchored(session, target, reference_ms)
    name = _hash(signature.key)
    known = session.get(DevicePointRow, (row.id, name, *point), with_for_update=True)
    if known is not None and known.status == "ok" and took.status != "ok":
        return
    if known is None:
        known = DevicePointRow(target_id=row.id, signature_id=name, channels_in=point[0], channels_out=point[1])
        session.add(known)
    known.signature = signature.key
    known.median_ms = None if took.median_ms is None else took.median_ms * row.reference_ms / reference_ms
    known.spread, known.repeats, known.status = took.spread, took.repeats, took.status
    known.error, known.measured_at = took.error, took.measured_at


def store_calibrations(session: Session, target: Target, reference_ms: float, models: Mapping[str, Any]) -> int:
    """Keep calibrations by model; how many. Those in another unit than the target's are left out.

    Raises:
        RefusedError: one of them is none.
    """
    row = _anchored(session, target, reference_ms)
    if row.reference_ms != reference_ms:
        return 0
    for model, value in models.items():
        body = json.dumps(value)
        try:
            Calibration.from_json(body)
        except InvalidKeyError as error:
            raise RefusedError(f"The calibration of {model[:80]!r} cannot be used: {error}") from error
        session.merge(DeviceCalibrationRow(target_id=row.id, model=model[:500], body=body))
    return len(models)


def table_of(session: Session, fingerprint: str) -> list[dict[str, Any]]:
    """All that is known of a device: by target its unit, points by signature, and calibrations by model."""
    found = []
    rows = session.scalars(select(DeviceTargetRow).where(DeviceTargetRow.fingerprint == fingerprint))
    for target in sorted(rows, key=lambda each: each.key):
        mine = select(DevicePointRow).where(DevicePointRow.target_id == target.id)
        order = (DevicePointRow.signature, DevicePointRow.channels_in, DevicePointRow.channels_out)
        signatures: dict[str, list[list[Any]]] = {}
        for point in session.scalars(mine.order_by(*order)):
            signatures.setdefault(point.signature, []).append([getattr(point, name) for name in _NAMES])
        calibrations = session.scalars(select(DeviceCalibrationRow).where(DeviceCalibrationRow.target_id == target.id))
        found.append(
            {
                "key": target.key,
                "label": Target.from_key(target.key).label,
                "reference_ms": target.reference_ms,
                "columns": list(_NAMES),
                "signatures": [
                    {"key": key, "label": Signature.from_key(key).label, "points": points}
                    for key, points in signatures.items()
                ],
                "calibrations": {row.model: json.loads(row.body) for row in calibrations},
            }
        )
    return found


def counts(session: Session) -> dict[str, dict[str, int]]:
    """By fingerprint the numbers of points and calibrations."""
    found: dict[str, dict[str, int]] = {}
    for name, table in (("points", DevicePointRow), ("calibrations", DeviceCalibrationRow)):
        rows = session.execute(
            select(DeviceTargetRow.fingerprint, func.count())
            .join(table, table.target_id == DeviceTargetRow.id)
            .group_by(DeviceTargetRow.fingerprint)
        )
        for fingerprint, count in rows:
            found.setdefault(fingerprint, {"points": 0, "calibrations": 0})[name] = count
    return found


def forget(session: Session, fingerprint: str) -> int:
    """Drop all that was measured on a device; how many targets there were."""
    mine = select(DeviceTargetRow.id).where(DeviceTargetRow.fingerprint == fingerprint)
    targets = len(session.scalars(mine).all())
    for table in (DevicePointRow, DeviceCalibrationRow):
        session.execute(delete(table).where(table.target_id.in_(mine)))
    session.execute(delete(DeviceTargetRow).where(DeviceTargetRow.fingerprint == fingerprint))
    session.execute(delete(DeviceResultRow).where(DeviceResultRow.fingerprint == fingerprint))
    return targets


def _anchored(session: Session, target: Target, reference_ms: float) -> DeviceTargetRow:
    """The target's row, in the smaller of its unit and ``reference_ms``."""
    name = _hash(target.key)
    row = session.get(DeviceTargetRow, name, with_for_update=True)
    if row is None:
        row = DeviceTargetRow(id=name, key=target.key, fingerprint=target.device.fingerprint, reference_ms=reference_ms)
        session.add(row)
        session.flush()
    elif reference_ms < row.reference_ms:
        mine = DevicePointRow.target_id == name
        disturbed = row.reference_ms >= SLOW * reference_ms
        session.execute(
            update(DevicePointRow)
            .where(mine, DevicePointRow.median_ms.is_not(None))
            .values(
                median_ms=DevicePointRow.median_ms * (reference_ms / row.reference_ms),
                status=case((DevicePointRow.status == "ok", "noisy"), else_=DevicePointRow.status)
                if disturbed
                else DevicePointRow.status,
            )
        )
        session.execute(delete(DeviceCalibrationRow).where(DeviceCalibrationRow.target_id == name))
        row.reference_ms = reference_ms
        session.flush()
        session.expire_all()
    return row


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
