"""The least that a loader does: fetch, decode, binary COPY into a table with callflow's key.

    python bare.py BASE_URL DATABASE_URL [stage|upsert]

`stage` and then `upsert` are the plainest loader that can run twice: COPY into an unlogged table;
INSERT … ON CONFLICT DO UPDATE of all its rows. Needs nothing of callflow.
"""

import sys
from datetime import datetime

import httpx
import msgspec
import psycopg


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


COLUMNS = """source text COLLATE "C", sid text COLLATE "C", account_sid text, flex_flow_sid text,
    user_sid text, task_sid text, date_created timestamptz, date_updated timestamptz, url text"""
OTHERS = (
    "account_sid", "flex_flow_sid", "user_sid", "task_sid", "date_created", "date_updated", "url"
)  # fmt: skip
UPSERT = f"""INSERT INTO channels SELECT * FROM staged ON CONFLICT (source, sid) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in OTHERS)}"""


def load(client: httpx.Client, url: str | None, connection: psycopg.Connection, table: str) -> None:
    decoder = msgspec.json.Decoder(Page)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(["text"] * 6 + ["timestamptz"] * 2 + ["text"])
        while url:
            page = decoder.decode(client.get(url).content)
            for c in page.flex_chat_channels:
                copy.write_row(("bench", c.sid, c.account_sid, c.flex_flow_sid, c.user_sid,
                                c.task_sid, c.date_created, c.date_updated, c.url))  # fmt: skip
            url = page.meta.next_page_url


def main() -> None:
    base, database, (how,) = sys.argv[1], sys.argv[2], sys.argv[3:] or ["load"]
    with httpx.Client() as client, psycopg.connect(database) as connection:
        if how == "upsert":
            connection.execute(UPSERT.encode())
            return
        table, kind = ("staged", "UNLOGGED TABLE") if how == "stage" else ("channels", "TABLE")
        key = "" if how == "stage" else ", PRIMARY KEY (source, sid)"
        connection.execute(f"CREATE {kind} {table} ({COLUMNS}{key})".encode())
        load(client, f"{base}/v1/Channels?PageSize=1000", connection, table)


main()
