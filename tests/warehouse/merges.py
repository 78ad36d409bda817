"""Random histories of merges: of every stream, with values and shapes that no provider promises.

They use the rows of tests/load/test_model.py, and are more than an emulator sends: values that
repeat, records in parts, members of `extra` that have a column, and findings about flows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from sqlalchemy import Connection, text

from etl.load import merge, stage
from etl.load.changes import Log
from etl.providers.catalog import STREAMS
from etl.warehouse import tables
from tests.load.loading import Kind, at, kind_of, pairs_of
from tests.load.test_model import Key, Staged, scan_of

PARTS = ("a", "-b", "'%s\\😀")
INSTANCES = ("i", "j")
MOVED = '{"flow_name": "a", "name": "b", "integration": {"url": "a"}, "own": 1}'
"""Members that older versions of callflow had no column for."""


LEADS: dict[str, dict[str, Sequence[Any]]] = {
    "twilio.addresses": {
        "auto_creation_enabled": [True, True, False],
        "auto_creation_type": ["studio", "studio", "webhook"],
        "studio_flow_sid": [*PARTS, None],
        "webhook_url": [None, "https://u:p@x.example/y?key=1"],
    },
    "twilio.phone_numbers": {
        "capability_sms": [None, True, False],
        "trunk_sid": [None, None, "TK1"],
        "voice_studio_flow_sid": [*PARTS, None],
        "sms_studio_flow_sid": [*PARTS, None],
        "date_updated": [at(1), at(2)],
    },
    "twilio.studio_live_states": {
        "type": ["run-subflow", "run-subflow", "send-to-flex"],
        "properties": ['{"flow_sid": "a"}', '{"flow_sid": "-b", "workflow": "WW{{x}}"}', None],
    },
    "alibaba.phone_numbers": {"contact_flow_id": [*PARTS, "", None]},
}
"""Values that decide to which flow, or to what else, a row leads."""


@dataclass
class Account:
    """A stream of a source; `known` is scope → since when its changes are news (UTC)."""

    source: str
    provider: str
    stream: str
    kind: Kind
    keys: list[Key]
    known: dict[str, datetime] = field(default_factory=dict)

    @property
    def scopes(self) -> Sequence[str]:
        return INSTANCES if self.kind.scope else ("",)


def accounts() -> list[Account]:
    """Return every stream; for two sources where changes are logged by the flow."""
    found = []
    for name in STREAMS:
        provider, stream = name.split(".")
        kind = kind_of(name)
        single = len(tables.key_columns(kind.tables[0])) == 1
        keys: list[Key] = (
            [(part,) for part in PARTS] if single else [(i, p) for i in INSTANCES for p in PARTS]
        )
        numbers = ("one", "two") if stream in ("flows", "contact_flows") else ("one",)
        found += [Account(f"{provider}_{each}", provider, stream, kind, keys) for each in numbers]
    return found


def play(connection: Connection, rng: Random, steps: int) -> Iterator[datetime]:
    """Merge `steps` random scans into an empty warehouse; yield the instant of each.

    The first of them are of every stream once, so that no view is empty by chance.
    """
    every = accounts()
    first = rng.sample(every, len(every))
    for step in range(steps):
        account = first[step] if step < len(first) else rng.choice(every)
        merge_once(connection, rng, account, at(step))
        yield at(step)


def merge_once(connection: Connection, rng: Random, account: Account, now: datetime) -> None:
    kind, pairs = account.kind, pairs_of(account.source, account.kind)
    with connection.begin():
        stage.prepare(connection, pairs)
        for batch in scan_of(rng, kind, account.keys):
            for pair in pairs:
                name = pair.current.fullname
                rows = [odd(rng, name, row) for row in _unlike(batch, name)]
                stage.copy(connection, pair.stage, rows)
        stage.deduplicate(connection, pairs, {}, None, None)
        absent = merge.unlisted(connection, account.source, pairs[0], [])
        gone = [key for key in absent if rng.random() < 0.4]
        stream = STREAMS[f"{account.provider}.{account.stream}"]
        log = Log(account.provider, stream.parts, stream.scope, [*account.known])
        merge.merge(
            connection,
            account.source,
            pairs,
            gone,
            now,
            looked_up=rng.random() < 0.5,
            many=rng.choice([0, 2, merge.MANY]),
            log=log,
        )
        for scope in account.scopes:
            if scope not in account.known and rng.random() < 0.4:
                account.known[scope] = now
        stage.clear(connection, pairs)
        note(connection, account)


def _unlike(batch: Staged, name: str) -> list[tuple[Any, ...]]:
    """Return rows of a table; of findings one for each key, which `odd` makes fewer of."""
    if name != "alibaba.contact_flow_findings":
        return batch[name]
    return list({finding(row)[1:6]: finding(row) for row in batch[name]}.values())


def finding(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of findings, some of which say that the whole flow is unreadable."""
    ordinal, instance, flow, activity, kind, event, *others = row
    activity = "" if activity == "x" else activity
    kind = "unreadable" if kind == "x" else kind
    return (ordinal, instance, flow, activity, kind, event, *others)


def odd(rng: Random, name: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row, at times with members in `extra` that have a column.

    One that leads to flows of another stream leads to one of them, to none, or elsewhere.
    """
    names = tables.data_columns(tables.metadata.tables[name])
    own = len(row) - len(names)
    for column, values in LEADS.get(name, {}).items():
        place = own + names.index(column)
        row = (*row[:place], rng.choice(values), *row[place + 1 :])
    return (*row[:-1], MOVED) if rng.random() < 0.15 else row


def note(connection: Connection, account: Account) -> None:
    """Record in etl.streams since when the changes of a stream are news."""
    known = {scope: time.isoformat() for scope, time in account.known.items()}
    connection.execute(
        tables.streams.delete().where(
            tables.streams.c.source == account.source, tables.streams.c.stream == account.stream
        )
    )
    connection.execute(
        tables.streams.insert().values(
            source=account.source,
            stream=account.stream,
            provider=account.provider,
            known_since=known,
            rows=0,
        )
    )


def log_of(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the rows of the log, in an order that depends on them alone."""
    rows = connection.execute(text(f"SELECT * FROM {tables.changes.fullname}")).all()
    return sorted((tuple(row) for row in rows), key=repr)
