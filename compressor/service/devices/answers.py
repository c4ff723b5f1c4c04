"""What a device's answer leaves behind: points in its table, and results by what decides them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from compressor.service.devices import protocol, rows
from compressor.service.devices.protocol import Request
from compressor.service.devices.tables import DeviceCommandRow, DeviceResultRow, DeviceRow
from compressor.service.errors import ConflictError, RefusedError
from lut import InvalidKeyError, Measurement, Signature, Target

#: A ratio known no better than this was disturbed; it is measured again when it is asked for again.
_DOUBTFUL = 0.02


def conditions(device: DeviceRow) -> str:
    """All of a device that decides what it measures."""
    return json.dumps([device.fingerprint, device.runtime, device.runtime_version, device.threads])


def keep(session: Session, device: DeviceRow, row: DeviceCommandRow, answer: Any, now: datetime) -> None:
    """Check an answer and keep what later jobs can use.

    Raises:
        RefusedError: it is no answer. ConflictError: it is of another device.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("error", {}), dict):
        raise RefusedError("An answer of a device is an object with a result or an error.")
    if "error" in answer:
        return
    try:
        target = Target.from_key(answer["target"])
        unit, result = float(answer["reference_ms"]), answer["result"]
        if target.device.fingerprint != device.fingerprint:
            raise ConflictError(f"The device {device.name} answers with times of another: {target.device.label}.")
        if row.request["operation"] == protocol.MEASURE:
            given = Request.from_json(row.request).arguments
            signature = Signature.from_key(given["signature"])
            point = signature.point(given["channels_in"], given["channels_out"])
            rows.store_point(session, target, unit, signature, point, Measurement(**result))
        elif row.cache_key is not None and _is_sure(row.request["operation"], result):
            known = DeviceResultRow(
                cache_key=row.cache_key, fingerprint=device.fingerprint, answer=answer, created_at=now
            )
            session.merge(known)
    except (KeyError, TypeError, ValueError, InvalidKeyError) as error:
        raise RefusedError(f"The device's answer cannot be understood: {type(error).__name__}: {error}.") from error


def _is_sure(operation: str, result: dict[str, Any]) -> bool:
    """Whether nothing disturbed what was timed, so that it holds for later jobs, too."""
    if operation == protocol.NETWORKS:
        return not result["busy"]
    if operation == protocol.PAIR:
        return float(result["margin"]) <= _DOUBTFUL
    return result["noise"] is None
