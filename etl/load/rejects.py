"""Records that no table can hold, kept raw in etl.rejects."""

import hashlib
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, func
from sqlalchemy.dialects.postgresql import JSONB, insert

from etl.transform.rows import Reject
from etl.transform.values import as_json
from etl.warehouse.tables import rejects

_ROOM = 1 << 20
"""Bytes of rejects, or a thousand of them, that are sent at once."""


def keep(
    connection: Connection, source: str, stream: str, run_id: str, found: Iterable[Reject]
) -> None:
    """Keep each of `found` once, in the open transaction.

    Of one that is kept already, only `run_id` and `last_seen` change.
    """
    own = {"source": source, "stream": stream, "run_id": run_id}
    kept: set[str] = set()
    values: list[dict[str, Any]] = []
    room = _ROOM
    for item in found:
        payload = as_json(item.payload)
        digest = hashlib.sha256(f"{item.reason}\n{payload}".encode()).hexdigest()
        if digest in kept:
            continue
        kept.add(digest)
        values.append({"digest": digest, "reason": item.reason, "payload": payload})
        room -= len(payload) + _ROOM // 1000
        if room < 0:
            _insert(connection, own, values)
            values, room = [], _ROOM
    if values:
        _insert(connection, own, values)


def _insert(connection: Connection, own: dict[str, str], values: list[dict[str, Any]]) -> None:
    seen = func.clock_timestamp()
    insertion = insert(rejects).values(
        **own,
        digest=bindparam("digest"),
        reason=bindparam("reason"),
        payload=cast(cast(bindparam("payload"), Text), JSONB),
        first_seen=seen,
        last_seen=seen,
    )
    connection.execute(
        insertion.on_conflict_do_update(
            index_elements=["source", "stream", "digest"],
            set_={"run_id": own["run_id"], "last_seen": seen},
        ),
        values,
    )
