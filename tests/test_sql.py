"""Queries that people ask: what is allowed, what is read, and with whose rights."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from etl.commands import sql, values
from etl.config.redact import Redactor
from etl.errors import QueryError
from etl.warehouse import grant, migrate
from etl.warehouse.connect import connect
from etl.warehouse.model import moment
from tests.postgres import dsn


def prepare(raw: Any, _: Any) -> None:
    """Give sessions another time zone, which must not matter, and a limit that ends a deadlock."""
    raw.execute("SET TIME ZONE 'Asia/Tokyo'")
    raw.execute("SET statement_timeout = '25s'")
    raw.commit()


@pytest.fixture
def engine(warehouse: str) -> Iterator[Engine]:
    engine = connect(warehouse)
    event.listen(engine, "connect", prepare)
    try:
        yield engine
    finally:
        engine.dispose()


def ask(engine: Engine, query: str, **options: Any) -> Generator[Sequence[Any], None, None]:
    return sql.ask(engine, query, Redactor(), **options)


# --- ask -----------------------------------------------------------------------------------------
LEAVE = """
import sys
from etl.commands.sql import ask
from etl.config.redact import Redactor
from etl.warehouse.connect import connect
engine = connect(sys.argv[1])
rows = ask(engine, "SELECT generate_series(1, 10000000)", Redactor())
print([next(rows) for _ in range(int(sys.argv[2]))])
rows.close()
with engine.connect() as connection:
    print(connection.exec_driver_sql("SELECT 'works'").scalar(), engine.pool.checkedout())
"""


@pytest.mark.slow
@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_closing_before_the_last_row_does_not_block(warehouse: str, taken: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, warehouse, str(taken)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("works 1\n")


@pytest.mark.parametrize("empty", ["", " \n", ";"])
def test_an_empty_query_is_refused(engine: Engine, empty: str) -> None:
    with pytest.raises(QueryError, match=r"^sql: the query is empty → give a SELECT$"):
        next(ask(engine, empty))


def test_several_statements_are_refused(engine: Engine) -> None:
    with pytest.raises(QueryError, match=r"→ one statement only$"):
        next(ask(engine, "SELECT 1; SELECT 2"))


@pytest.mark.parametrize("statement", ["-- nothing", "SET x.y = 1", "COPY zoom.flows TO STDOUT"])
def test_a_statement_without_rows_is_refused(
    engine: Engine, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(QueryError, match=r"^sql: it returns no rows → SELECT something$"):
        next(ask(engine, statement))
    assert caplog.text == ""
    assert list(ask(engine, "SELECT 1 AS one")) == [["one"], (1,)]


INTERVAL = "SELECT current_setting('client_connection_check_interval')"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere servers may refuse it")
@pytest.mark.every_postgres
def test_the_server_checks_that_the_client_is_still_there(engine: Engine) -> None:
    assert list(ask(engine, INTERVAL))[1:] == [("5s",)]
    with engine.connect() as connection:
        assert connection.exec_driver_sql(INTERVAL).scalar() == "0"


def test_a_server_that_cannot_check_still_answers(engine: Engine) -> None:
    def refused(_1: Any, _2: Any, statement: str, values: Any, *_3: Any) -> tuple[str, Any]:
        """Send a number that every server refuses, as one that cannot check refuses any."""
        return statement.replace("_interval = '5s'", "_interval = '-5s'"), values

    event.listen(engine, "before_cursor_execute", refused, retval=True)
    assert list(ask(engine, INTERVAL))[1:] == [("0",)]


# --- values are read without loss ----------------------------------------------------------------
KEPT = {
    "float8": ["NaN", "Infinity", "-Infinity", "0.1", "1e300", "-0", "5e-324"],
    "float4": ["NaN", "-Infinity", "0.1", "16777216"],
    "numeric": ["1.10", "0.0000000", "NaN", "-Infinity", f"{10**40}.{'0' * 30}1", "1e-30"],
    "int8": ["9223372036854775807"],
    "date": ["infinity", "-infinity", "0044-03-15 BC", "0001-01-01", "9999-12-31", "10000-01-01"],
    "timestamp": ["infinity", "0044-03-15 12:00 BC", "10000-01-01", "2026-01-02 03:04:05.678901"],
    "timestamptz": ["-infinity", "0001-01-01 00:00+00", "0001-01-01 00:00+15 BC",
                    "9999-12-31 23:59:59-15", "294276-12-31 00:00+00"],
    "time": ["24:00", "00:00", "23:59:59.999999"],
    "timetz": ["24:00+15:59", "00:00-15:59"],
    "interval": ["1 mon 2 days -00:00:00.000001", "-178000000 years", "0"],
    "bytea": ["\\x00ff", ""],
    "json": ['{"a": 1.10,\n "b": 1e400, "a": [1]}', "12345678901234567890.10"],
    "jsonb": ['{"a": 1.10, "b": 123456789012345678901234567890, "c": "\\u2028"}'],
    "money": ["1234.50"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "tstzrange": ["[-infinity,infinity]", "[10000-01-01,)"],
    "int4multirange": ["{[1,2),[5,6)}"],
    "inet": ["10.1.2.3/8", "::1"],
    "text": ["", " x ", 'a"b', "a,b", "\\.", "l1\nl2", "\x1b[31m", "投诉"],
    "bool": ["true", "false"],
    "uuid": ["5c1b6a4e-8f0a-4b8e-9a53-111111111111"],
    "bit(3)": ["101"],
    "point": ["(1,2.5)"],
}  # fmt: skip


@pytest.mark.every_postgres
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
def test_every_value_is_read_without_loss(warehouse: str, zone: str) -> None:
    """Postgres itself confirms that the text we keep means the same value."""
    pairs = [(kind, value) for kind, values in KEPT.items() for value in values]
    literals = [f"{_quote(value)}::{kind}" for kind, value in pairs]
    with psycopg.connect(dsn(warehouse), autocommit=True) as other:
        other.execute(f"SET TIME ZONE '{zone}'".encode())
        with other.cursor() as cursor:
            values.keep_everything(cursor)
            cursor.execute(f"SELECT {', '.join(literals)}".encode())
            ((*found,),) = cursor.fetchall()
        same = [
            f"({_quote(values.as_text(value))}::{kind})::text = ({literal})::text"
            for (kind, _), literal, value in zip(pairs, literals, found, strict=True)
        ]
        rows = other.execute(f"SELECT {', '.join(same)}".encode()).fetchall()
        wrong = [pair for pair, good in zip(pairs, rows[0], strict=True) if not good]
        assert wrong == []
    for (kind, _), value in zip(pairs, found, strict=True):
        read = json.loads(values.as_json(value), parse_constant=pytest.fail)
        number = kind in ("float8", "float4", "numeric", "int8") and "n" not in str(value).lower()
        if kind.startswith("json"):
            continue
        assert isinstance(read, int | float) if number else not isinstance(read, float), kind


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def test_lists_are_json(engine: Engine) -> None:
    asked = """SELECT ARRAY[1.10, 'NaN'], ARRAY['a,b', NULL, 'NULL', ''], '{{1,2},{3,4}}'::int[],
        ARRAY['infinity'::date, '2026-01-01'], ARRAY['{"k":  1.10}'::json], '{}'::bool[]"""
    _, row = ask(engine, asked)
    assert [values.as_json(value) for value in row] == [
        '[1.10, "NaN"]', '["a,b", null, "NULL", ""]', "[[1, 2], [3, 4]]",
        '["infinity", "2026-01-01"]', '[{"k":  1.10}]', "[]",
    ]  # fmt: skip


def test_repeated_names_differ_from_all_others() -> None:
    assert values.make_unique(["a", "a", "b", "a_2", "a", "a_2"]) == [
        "a", "a_3", "b", "a_2", "a_4", "a_2_2"
    ]  # fmt: skip
    many = values.make_unique(["?column?"] * 1600)
    assert len(set(many)) == 1600


# --- which statements are run --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("-- first\nSELECT 1 AS one", [["one"], (1,)]),
        ("\n/* x */ VALUES (1), (2);", [["column1"], (1,), (2,)]),
        ("WITH x AS (SELECT 3 AS y) TABLE x", [["y"], (3,)]),
        ("SHOW server_encoding", [["server_encoding"], ("UTF8",)]),
        ("SELECT flow_id, 1 AS n FROM zoom.flows", [["flow_id", "n"]]),
    ],
)
def test_every_statement_that_gives_rows_is_run(engine: Engine, asked: str, expected: Any) -> None:
    assert list(ask(engine, asked)) == expected


def test_a_statement_without_rows_is_not_run(engine: Engine, tmp_path: Path) -> None:
    """This engine's role is a superuser, so it could run programs."""
    tmp_path.chmod(0o777)
    ran = tmp_path / "ran"
    for asked in (
        f"COPY (SELECT 1) TO PROGRAM 'touch {ran}'",
        f"COPY (SELECT 1) TO '{ran}'",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
        "DO $$ BEGIN RAISE EXCEPTION 'it was run'; END $$",
        "DELETE FROM zoom.flows",
        "PREPARE TRANSACTION 'x'",
    ):
        with pytest.raises(QueryError, match="returns no rows"):
            next(ask(engine, asked))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("SELECT $1::int", r"^sql: it has a parameter \(\$1\) → write the value in its place$"),
        ("SELECT '\0'", "has a NUL in it"),
        ("SELECT '\udcff'", "is not UTF-8"),
        ("SELECT set_config('transaction_read_only', 'off', false)", r"before any query"),
        ("WITH x AS (DELETE FROM zoom.flows RETURNING 1) SELECT 1 FROM x", "`callflow sql` only"),
        ("SELECT lo_create(7), 1 / 0", "read-only|division"),
        ("SELECT 1; DROP TABLE zoom.flows", "→ one statement only"),
        (
            "SELECT * FROM flows",
            r"→ did you mean callflow\.flows or zoom\.flows\?\nLINE 1: .*\n {22}\^$",
        ),
        ('SELECT * FROM "zoom" . "flow"', r"did you mean zoom\.flows\?"),
        ("SELECT * FROM flex_flow AS f", r"did you mean twilio\.flex_flows\?"),
        ("SELECT * FROM nothing_like_it", "name a table with its schema"),
        ("SELECT flow_nam FROM zoom.flows", r"\nHINT: .*flow_name"),
        ("SELECT '投诉' :: int", r"\(22P02\) → correct the query at the mark\nLINE 1: "),
    ],
)
def test_errors_are_shown_as_psql_shows_them(engine: Engine, asked: str, expected: str) -> None:
    with pytest.raises(QueryError) as caught:
        list(ask(engine, asked))
    assert re.search(expected, str(caught.value)), str(caught.value)


# --- as of a moment ------------------------------------------------------------------------------
MOMENTS = (
    "2026-11-17", "2026-11-17 14:05", "2026-11-17T14:05:06", "2026-11-17 14:05:06.123456789",
    "2026-11-17 14:05:06.9999996", "2026-11-17 14:05+01", "2026-11-17 14:05 -0330",
    "2026-11-17 14:05:01.5+05:45", "2026-11-17 14:05Z", "2026-11-17 14:05 UTC", "2024-02-29",
    "0001-01-01 00:00+15", "2026-11-17 14:05\n", "9999-12-31 23:59:59-12",
)  # fmt: skip
NO_MOMENTS = (
    " 2026-11-17", "2026-11-17 ", "2026-11-17\n", "2026-11-17 14:05 \n", "2026-02-29", "2026-13-01",
    "0000-01-01", "yesterday", "now", "infinity", "2026-11-17 14", "2026-11-17 24:00", "2026-11",
    "2026-11-17 14:05 Europe/Berlin", "2026-11-17 14:05+16", "17.11.2026", "2026-11-17 14:05+1",
    "'; DROP TABLE zoom.flows; --", "２０２６-11-17", "2026-11-17 14:05 -c jit=on", "5 BC",
)  # fmt: skip


@pytest.mark.every_postgres
def test_a_moment_is_read_as_the_views_read_it(engine: Engine) -> None:
    set_at = text("SELECT set_config('callflow.at', :at, true)")
    for given in MOMENTS:
        with engine.begin() as connection:
            connection.execute(set_at, {"at": given})
            meant = text("SELECT callflow.moment() = CAST(:at AS timestamptz)")
            assert connection.execute(meant, {"at": moment.parse(given).isoformat()}).scalar()
    for given in NO_MOMENTS:
        with pytest.raises(ValueError, match="expected a"):
            moment.parse(given)
        with pytest.raises(DBAPIError, match=r"callflow.at|invalid input"), engine.begin() as c:
            c.execute(set_at, {"at": given})
            c.exec_driver_sql("SELECT callflow.moment()")


def test_views_answer_as_of_the_moment_that_is_asked_for(engine: Engine) -> None:
    with engine.begin() as connection:
        for name, since, to in (("old", "2026-01-01", "2026-02-01"), ("new", "2026-02-01", None)):
            table = "history.zoom_flows" if to else "zoom.flows"
            connection.exec_driver_sql(
                f"INSERT INTO {table} (source, flow_id, flow_name, valid_from"
                f"{', valid_to' if to else ''}) VALUES ('s', 'f', '{name}', '{since}'"
                + (f", '{to}')" if to else ")")
            )
    asked = "SELECT name, current_setting('callflow.at', true) AS at FROM callflow.flows"
    early = datetime(2026, 1, 15, tzinfo=UTC)
    for at, expected in ((early, "old"), (datetime(2026, 3, 1, tzinfo=UTC), "new"), (None, "new")):
        _, (name, said) = ask(engine, asked, at=at)
        assert name == expected
        assert (said or "") == (at.isoformat() if at else "")  # nothing of it stays in the session
    assert list(ask(engine, asked, at=datetime(2025, 1, 1, tzinfo=UTC)))[1:] == []


@pytest.mark.every_postgres
def test_a_role_that_only_reads_is_distinguished_from_an_owner(
    warehouse: str, engine: Engine
) -> None:
    role = f"reader_{os.getpid()}"
    with psycopg.connect(dsn(warehouse), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'r'".encode())
    url = make_url(warehouse).set(username=role, password="r")
    reads = connect(url)
    try:
        with engine.begin() as connection:
            grant.grant(connection, role)
            connection.exec_driver_sql("CREATE TABLE zoom.added ()")
        with engine.connect() as connection:
            assert "runs with the rights of callflow, a superuser" in str(
                grant.more_than_reads(connection)
            )
            assert not migrate.is_hidden(connection)
        with reads.connect() as connection:
            assert grant.more_than_reads(connection) is None
            assert migrate.is_hidden(connection)
            connection.exec_driver_sql("SELECT * FROM zoom.added")
        assert list(ask(reads, "SELECT count(*) FROM zoom.flows"))[1:] == [(0,)]
        with pytest.raises(QueryError, match=r"\(42501\) → ask Ann\n"):
            list(ask(reads, "TABLE etl.runs", denied="ask Ann"))

        with engine.begin() as connection:
            grant.let_read(connection, role)
            before = connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar()
        with engine.begin() as connection:
            grant.let_read(connection, role)  # nothing is missing: nothing is written
            again = connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar()
        assert (before is None, again) == (False, None)
        assert list(ask(reads, "SELECT count(*) FROM etl.rejects"))[1:] == [(0,)]
    finally:
        reads.dispose()
        with psycopg.connect(dsn(warehouse), autocommit=True) as admin:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
