"""Pages of odd records through a whole run, over a socket into a real warehouse, and what is left.

`Campaign(url, seed).run_round(number)` runs a round: a page per list, one run of its stream; then
every record must be in its table, equal to what was sent, or in etl.rejects. Every other round the
run is repeated, and must write nothing. Every fifth round has damaged bytes: there any answer will
do that is no exception. An AssertionError names the round, which `--seed` and `--only` repeat.
"""

import json
import math
import random
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import DateTime, Table, text

from etl.config import load as config
from etl.load.runs import Run
from etl.providers.catalog import TABLES
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import select
from etl.transform.values import escaped, storable
from etl.warehouse import tables
from etl.warehouse.connect import connect
from tests.fuzz.raw import LISTS, Raw, packed, raw
from tests.fuzz.records import Maker, damaged
from tests.postgres import dsn

SIZES = {
    "zoom_raw.flows": 400,
    "twilio_raw.flex_flows": 500,
    "twilio_raw.channels": 1000,
    "alibaba_raw.contact_flows": 100,
}
OF = {
    "zoom_raw.flows": TABLES["zoom.flows"],
    "twilio_raw.flex_flows": TABLES["twilio.flex_flows"],
    "twilio_raw.channels": TABLES["twilio.channels"],
    "alibaba_raw.contact_flows": TABLES["alibaba.contact_flows"],
}
ZONE = ZoneInfo("Asia/Shanghai")
_LONE = re.compile("[\0\ud800-\udfff]")


class Campaign:
    """Rounds against one warehouse; `settings` are those of `provider`."""

    def __init__(self, url: str, provider: Raw, folder: Path, seed: int) -> None:
        path = folder / "callflow.toml"
        path.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n{provider.toml()}', encoding="utf-8")
        path.chmod(0o600)
        self.settings = config.load(path, {})
        self.provider = provider
        self.engine = connect(url)
        self.seed = seed
        self.records = self.rejected = self.runs = 0

    def run_round(self, number: int, share: float = 1.0) -> None:
        """Run round `number`, with as many records as `SIZES` says, or a share of them."""
        rng = random.Random(f"{self.seed} {number}")
        stream = list(SIZES)[number % len(SIZES)]
        maker = Maker(rng, rng.choice([0.02, 0.15, 0.5]))
        sent = maker.page(stream, max(1, int(SIZES[stream] * share)))
        self.records += len(sent)
        self.empty()
        try:
            if number % 5 == 4:
                self._damaged(rng, stream, sent)
                return
            self.provider.list(stream, sent)
            run = self.run(stream)
            self.rejected += run.rejected
            self._check(stream, run, sent)
            if number % 2:
                again = self.run(stream)
                assert again.rows_written == 0, f"wrote {again.rows_written} rows again"
        except Exception as error:
            error.add_note(f"round {number} of seed {self.seed}: {stream}")
            raise

    def run(self, stream: str) -> Run:
        """Return one run of `stream`, in this process."""
        ((settings, of),) = select(self.settings, [stream])
        self.runs += 1
        return run_stream(Job(self.engine, of, settings, "fuzz:1:unknown", sleep=lambda _: None))

    def empty(self) -> None:
        """Delete the rows of previous rounds."""
        names = [*(table.fullname for table in TABLES.values()), "etl.rejects", "etl.streams"]
        names += [f"history.{t.fullname.replace('.', '_')}" for t in TABLES.values()]
        with self.engine.begin() as connection:
            have = [n for n in names if connection.scalar(text(f"SELECT to_regclass('{n}')"))]
            connection.execute(text(f"TRUNCATE {', '.join(have)}, etl.absences"))

    def _damaged(self, rng: random.Random, stream: str, sent: list[bytes]) -> None:
        path, before, after = LISTS[stream]
        body = before + b",".join(sent) + (after % len(sent) if b"%d" in after else after)
        self.provider.answers[path] = packed(damaged(rng, body))
        run = self.run(stream)
        kinds = (None, "rejected_rows", "contract", "incomplete_scan", "credentials", "page_token")
        assert run.error_kind in kinds, run

    def _check(self, stream: str, run: Run, sent: list[bytes]) -> None:
        table = OF[stream]
        of = tables.key_columns(table)[-1]
        name = table.c[of].info["json"][0]
        last: dict[str, dict[str, Any]] = {}
        lost: list[tuple[bytes, Any]] = []
        for record in sent:
            value = read(record)
            identifier = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, dict) and is_key(identifier):
                last[str(identifier)] = value
            else:
                lost.append((record, value))
        rows = self._rows(table)
        assert {row[of] for row in rows} == set(last), "records are missing, or too many"
        assert run.status == ("incomplete" if run.rejected else "complete"), run.error
        assert run.rejected >= len(lost)
        assert run.records == len(last) + len(lost)
        for row in rows:
            kept(table, last[row[of]], row)
        self._check_rejects(lost)

    def _check_rejects(self, lost: list[tuple[bytes, Any]]) -> None:
        with self.engine.connect() as connection:
            payloads = list(
                connection.scalars(
                    tables.rejects.select().with_only_columns(tables.rejects.c.payload)
                )
            )
        texts = {payload for payload in payloads if isinstance(payload, str)}
        for record, value in lost:
            sent = record.decode(errors="backslashreplace")
            whole = sent if storable(sent) else escaped(sent)
            assert whole in texts or any(same(payload, value) for payload in payloads), record

    def _rows(self, table: Table) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            connection.execute(text("SET TIME ZONE 'UTC'"))
            return [dict(row) for row in connection.execute(table.select()).mappings()]


def read(record: bytes) -> Any:
    """Parse `record` with Python's own parser; return None if it is not JSON."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def number(digits: str) -> float | str:
        value = float(digits)
        return value if math.isfinite(value) else digits

    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) < 4000 else digits

    try:
        return json.loads(
            record.decode(), parse_constant=refuse, parse_float=number, parse_int=integer
        )
    except (ValueError, RecursionError):
        return None


def is_key(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) < 500 and not _LONE.search(value)


def kept(table: Table, record: dict[str, Any], row: dict[str, Any]) -> None:
    """Assert that every member of `record` is in a column of `row`, or in its extra."""
    extra = row["extra"] or {}
    paths = {c.info["json"]: c for c in table.columns if "json" in c.info}
    groups = {path[0] for path in paths if len(path) > 1}
    for name, value in record.items():
        if name in ("flow_versions", "entry_points", "NumberList"):
            continue  # tests/transform looks for these
        if name == "InstanceId" and value == row.get("instance_id"):
            continue
        inside = name in groups and isinstance(value, dict)
        home = extra.get(name, {}) if inside else extra
        for path, sent in (
            [((name, inner), one) for inner, one in value.items()] if inside else [((name,), value)]
        ):
            column = paths.get(path)
            if sent is None and (column is not None or name in groups):
                continue
            cell = None if column is None else row[column.name]
            if cell is not None and column is not None and fits(column, cell, sent):
                continue
            found = [one for other, one in home.items() if named(other, path[-1])]
            assert any(same(one, sent) for one in found), (path, sent, cell, found)


def fits(column: Any, cell: Any, sent: Any) -> bool:
    """Return whether the cell of a column holds all of what was sent."""
    if isinstance(column.type, DateTime):
        moment = datetime.fromisoformat(sent.upper())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=ZONE)
        return isinstance(cell, datetime) and abs(cell - moment) < timedelta(microseconds=2)
    if type(cell) in (bool, int) and isinstance(sent, str):
        return json.dumps(cell) == sent
    if isinstance(cell, bool) or isinstance(sent, bool):
        return cell is sent
    return bool(cell == sent)


def same(stored: Any, sent: Any) -> bool:
    """Return whether `stored` is `sent`, except for depth and text that Postgres cannot hold."""
    if isinstance(stored, str):
        if not isinstance(sent, str):
            return isinstance(sent, dict | list) and bool(read(stored.encode()) == sent)
        return stored == sent or unescaped(stored) == sent
    if isinstance(sent, bool) or isinstance(stored, bool) or sent is None:
        return stored is sent
    if isinstance(sent, int | float):
        if stored == sent or not isinstance(stored, int | float):
            return bool(stored == sent)
        finite = abs(stored) <= int(sys.float_info.max) and isinstance(sent, float)
        return finite and math.isclose(stored, sent, rel_tol=1e-15)
    if isinstance(sent, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(sent)
            and all(same(one, other) for one, other in zip(stored, sent, strict=True))
        )
    return (
        isinstance(sent, dict)
        and isinstance(stored, dict)
        and len(stored) == len(sent)
        and all(
            any(named(name, key) and same(one, value) for name, one in stored.items())
            for key, value in sent.items()
        )
    )


def named(stored: str, sent: str) -> bool:
    return sent in (stored, unescaped(stored), unescaped(re.sub(r"_(_*|[0-9]+)$", "", stored)))


def unescaped(stored: str) -> Any:
    try:
        return json.loads(f'"{stored}"')
    except ValueError:
        return None


@contextmanager
def campaign(url: str, folder: Path, seed: int) -> Iterator[Campaign]:
    """Yield a campaign on the warehouse at `url`."""
    with raw() as provider:
        playing = Campaign(url, provider, folder, seed)
        try:
            yield playing
            assert not provider.errors
        finally:
            playing.engine.dispose()
