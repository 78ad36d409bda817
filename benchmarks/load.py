"""Measure how fast a load is, how much it writes, and how much memory it takes.

    python benchmarks/load.py [--channels 200000] [--runs 3] [--url postgresql://…]

The Twilio channels come from the sandbox (pages of 1,000, another process, on loopback) and go to
Postgres (the embedded one with its ordinary settings, unless `--url` names a database). They are
compared with the least that any tool could do: fetch, decode, binary COPY into a table with the
same key. Both run in turn, as whole processes. Compare the ratios: seconds depend on the machine.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from etl.warehouse import embedded

BARE = '''
import sys, httpx, msgspec, psycopg
from datetime import datetime
url, base, user, password = sys.argv[1:]
class Channel(msgspec.Struct, gc=False):
    sid: str
    account_sid: str | None = None
    flex_flow_sid: str | None = None
    user_sid: str | None = None
    task_sid: str | None = None
    date_created: datetime | None = None
    date_updated: datetime | None = None
    url: str | None = None
class Meta(msgspec.Struct):
    next_page_url: str | None
class Page(msgspec.Struct):
    flex_chat_channels: list[Channel]
    meta: Meta
decoder = msgspec.json.Decoder(Page)
with httpx.Client(auth=(user, password)) as client, psycopg.connect(url) as connection:
    connection.execute("CREATE SCHEMA IF NOT EXISTS bare")
    connection.execute("DROP TABLE IF EXISTS bare.channels")
    connection.execute("""CREATE TABLE bare.channels (source text COLLATE "C",
        sid text COLLATE "C", account_sid text, flex_flow_sid text, user_sid text, task_sid text,
        date_created timestamptz, date_updated timestamptz, url text, PRIMARY KEY (source, sid))""")
    statement = "COPY bare.channels FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["text"] * 6 + ["timestamptz"] * 2 + ["text"])
        following = base + "/v1/Channels?PageSize=1000"
        while following:
            page = decoder.decode(client.get(following).content)
            for c in page.flex_chat_channels:
                copy.write_row(("twilio_demo", c.sid, c.account_sid, c.flex_flow_sid, c.user_sid,
                                c.task_sid, c.date_created, c.date_updated, c.url))
            following = page.meta.next_page_url
'''


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--channels", type=int, default=200_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--url")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        url = given.url
        if url is None:
            server = embedded.start(folder / "postgres")
            embedded.administer(server, ["GRANT pg_checkpoint TO callflow"])
            url = server.url().replace("+psycopg", "")
        sandbox = subprocess.Popen(
            [sys.executable, "-m", "etl", "sandbox", "--ports", "0", "0", "0", "--flows", "10",
             "--channels", str(given.channels)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            measure(folder, url, sandbox_config(sandbox), given.channels, given.runs)
        finally:
            sandbox.terminate()
            sandbox.wait()
            if given.url is None:
                embedded.stop(folder / "postgres")


def sandbox_config(sandbox: subprocess.Popen[str]) -> str:
    lines = []
    assert sandbox.stdout
    for line in sandbox.stdout:
        lines.append(line)
        if len(lines) > 3 and lines.count("requests_per_second = 0\n") == 3:
            break
    return "".join(lines)


def measure(folder: Path, url: str, toml: str, channels: int, runs: int) -> None:
    config = folder / "callflow.toml"
    config.write_text(f'[warehouse]\nurl = "{url}"\n{toml}')
    config.chmod(0o600)
    twilio = toml[toml.index("[sources.twilio_demo]") :]
    base, user, password = (
        re.search(f'{key} = "(.*)"', twilio)[1] for key in ("base_url", "account_sid", "auth_token")
    )
    sync = [
        sys.executable,
        "-m",
        "etl",
        "sync",
        "twilio_demo.channels",
        "--json",
        "-c",
        str(config),
    ]
    bare = [sys.executable, "-c", BARE, url, base, user, password]
    subprocess.run([*sync[:3], "migrate", "-c", str(config)], check=True, stdout=subprocess.DEVNULL)
    figures: dict[str, list[tuple[float, float, float, float]]] = {
        "bare": [], "first": [], "second": [], "third": []
    }  # fmt: skip
    for _ in range(runs):
        figures["bare"].append(run(bare, url))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE twilio.channels, history.twilio_channels, etl.streams")
            connection.execute("VACUUM ANALYZE twilio.channels")
        figures["first"].append(run(sync, url))
        figures["second"].append(run(sync, url))
        figures["third"].append(run(sync, url))
    print(f"{channels:,} channels, {runs} runs, medians")
    middle = {
        name: [statistics.median(x) for x in zip(*rows, strict=True)]
        for name, rows in figures.items()
    }
    for name, (seconds, cpu, memory, wal) in middle.items():
        print(
            f"{name:6} {seconds:6.2f} s, {cpu:5.2f} s of CPU, {memory:4.0f} MB, "
            f"{wal:9.1f} kB of WAL, {middle['bare'][0] / seconds:5.2f} of bare"
        )


def run(command: list[str], url: str) -> tuple[float, float, float, float]:
    """Return the seconds, CPU seconds and peak memory in MB of the process, and the WAL in kB."""
    with psycopg.connect(url, autocommit=True) as connection:
        with suppress(psycopg.errors.InsufficientPrivilege):  # the embedded server's owner
            connection.execute("CHECKPOINT")
        before = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.stdout.close()
        assert status == 0, out
        if out:
            line = json.loads(out)
            assert line["status"] == "complete", out
        after = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0]
        wal = float(after - before) / 1024
        return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, wal


if __name__ == "__main__":
    main()
