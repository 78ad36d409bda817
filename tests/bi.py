"""A warehouse for the examples of BI tools: every kind of record, changed and synced again."""

import re
from collections.abc import Mapping
from pathlib import Path

import psycopg

from etl import api
from etl.sandbox import alibaba_data, data, twilio_data, zoom_data
from etl.sandbox.server import Sandbox, serve
from tests.postgres import dsn

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

AGED = """
    UPDATE zoom.flows SET valid_from = valid_from - interval '9 days';
    UPDATE history.zoom_flows SET valid_from = valid_from - interval '9 days',
        valid_to = valid_to - interval '3 days';
    UPDATE history.changes SET observed_at = observed_at - interval '3 days'
    WHERE source = 'zoom_demo';
    UPDATE twilio.channels SET date_created = now() - interval '5 days' * (hashtext(sid) % 9)
"""
"""Puts some of it into the past: a run dates what it sees by now."""


def fill(url: str, folder: Path) -> None:
    """Sync generated and awkward records into the warehouse, change some, and sync them again."""
    with serve(data.Sizes(12, 40), seed=5) as sandbox:
        add_awkward(sandbox)
        config = folder / "callflow.toml"
        config.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n{sandbox.toml()}', encoding="utf-8")
        config.chmod(0o600)
        names = api.sources(config, env={})
        runs = [run for source in names for run in api.sync(source, config, env={})]
        assert {run.status for run in runs} == {"complete"}
        for _ in range(3):
            for emulator in sandbox.emulators.values():
                emulator.change()
            for source in names:
                api.sync(source, config, full=True, env={})
    with psycopg.connect(dsn(url)) as connection:
        connection.execute(AGED)


def add_awkward(sandbox: Sandbox) -> None:
    """Add what providers may send and generated records do not have: NULLs, '', odd names.

    One number leads to three live flows of two providers.
    """
    for name in ("one", "two"):
        entry = {"entry_id": name, "entry_number": "+1 212 555 0100"}
        flow = {"flow_id": f"shares-number-{name}", "status": "published", "entry_points": [entry]}
        sandbox.zoom.flows.add(flow)
    whatsapp = {"channel_type": "whatsapp", "contact_identity": "whatsapp:+12125550100"}
    sandbox.twilio.flex_flows.add({"sid": "FOshares", "enabled": True, **whatsapp})
    for flow in zoom_data.awkward_flows():
        sandbox.zoom.flows.add(flow)
    for flow in twilio_data.awkward_flex_flows():
        sandbox.twilio.flex_flows.add(flow)
    for channel in twilio_data.awkward_channels():
        sandbox.twilio.channels.add(channel)
    for instance, flows in sandbox.alibaba.flows.items():
        for flow in alibaba_data.awkward_flows(instance):
            flows.add(flow)


def model(name: str) -> str:
    """Return the SQL of a model of examples/dbt as dbt would run it."""
    text = (EXAMPLES / f"dbt/models/{name}.sql").read_text(encoding="utf-8")
    return re.sub(r"\{\{ source\('(\w+)', '(\w+)'\) \}\}", r"\1.\2", text)


def substituted(sql: str, macros: Mapping[str, str]) -> str:
    """Return a query with each of the macros (regular expressions) replaced.

    Raises ValueError if a `$` or a `{` is left.
    """
    for pattern, given in macros.items():
        sql = re.sub(pattern, given, sql)
    if re.search(r"\$|\{", sql):
        raise ValueError(f"not substituted: {sql}")
    return sql
