"""What `callflow check` does with the warehouse, and how errors become findings."""

import re
import socket
from dataclasses import replace
from typing import Any

from pydantic import SecretStr
from sqlalchemy.engine import make_url

from etl.commands.check import check
from etl.config.redact import Redactor
from etl.config.settings import Settings, Warehouse
from etl.errors import CredentialsError
from etl.load import runs
from etl.load.runs import Outcome, Run
from etl.providers.zoom.source import ZoomSource
from etl.sync.selection import select
from etl.warehouse.connect import connect
from tests.postgres import dsn
from tests.proxies import listening, piped
from tests.test_queries import NOON


def settings_for(url: str, *sources: ZoomSource) -> Settings:
    return Settings(
        warehouse=Warehouse(url=SecretStr(url)), sources={each.name: each for each in sources}
    )


def test_the_warehouse_and_what_is_left_in_it_take_one_connection(warehouse: str) -> None:
    engine = connect(warehouse)
    with engine.begin() as connection:
        run = Run("id", "old", "flows", "full", NOON, status="complete")
        runs.finish(connection, run, Outcome(1))
    engine.dispose()
    url = make_url(dsn(warehouse))
    opened = []

    def forward(client: socket.socket) -> None:
        opened.append(client)
        with socket.create_connection((url.host or "127.0.0.1", url.port or 5432)) as server:
            piped(client, server)

    with listening(forward) as port:
        through = url.set(port=port).render_as_string(hide_password=False)
        found = list(check(settings_for(through), [], {}, Redactor()))
    assert [(each.subject, each.good) for each in found] == [
        ("config", True), ("warehouse", True), ("old", True)
    ]  # fmt: skip
    assert "`callflow forget old` moves them to history" in found[2].text
    assert len(opened) == 1


def test_an_error_after_a_successful_check_is_a_separate_finding(warehouse: str) -> None:
    """The schema is fine, but the recorded state cannot be read."""
    engine = connect(warehouse)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE etl.leases RENAME COLUMN until TO ends")
    engine.dispose()
    found = list(check(settings_for(dsn(warehouse)), [], {}, Redactor()))
    assert [each.good for each in found] == [True, False]


def test_a_finding_does_not_repeat_its_subject(warehouse: str) -> None:
    source = ZoomSource(name="z", account_id="a", client_id="c", client_secret=SecretStr("s"))
    settings = settings_for(dsn(warehouse), source)
    for where in ("z.flows", "z.flows, access token"):

        def probe(http: Any, source: Any, where: str = where) -> str:
            raise CredentialsError("refused", where=where, advice="renew it")

        ((_, stream),) = select(settings, [])
        units = [(source, replace(stream, probe=probe))]
        finding = list(check(settings, units, {}, Redactor()))[-1]
        assert (finding.subject, finding.good) == ("z.flows", False)
        assert re.fullmatch(r"(access token: )?refused → renew it", finding.text), finding
