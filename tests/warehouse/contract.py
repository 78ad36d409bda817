"""`python -m tests.warehouse.contract`: append new columns of our views to contract.txt.

contract.txt has a line for each column that users may rely on: view, position, name, type,
collation. `make docs` appends what is new; what has changed or is gone stays for a person to mend:
columns are only appended, because users' views stand on ours.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psycopg

from etl.warehouse.embedded import find_binaries
from tests.postgres import dsn, running

FILE = Path(__file__).parent / "contract.txt"

COLUMNS = """
SELECT relname, attnum, attname, format_type(atttypid, atttypmod),
       coalesce(collname, '-')
  FROM pg_attribute JOIN pg_class AS relation ON relation.oid = attrelid
  LEFT JOIN pg_collation ON pg_collation.oid = attcollation
 WHERE relnamespace = 'callflow'::regnamespace AND relkind = 'v' AND attnum > 0
 ORDER BY 1, 2
"""


def promised() -> list[str]:
    """Return the lines of contract.txt."""
    return FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []


def present(url: str) -> list[str]:
    """Return the lines that the views of a warehouse give."""
    with psycopg.connect(dsn(url)) as connection:
        rows = connection.execute(COLUMNS).fetchall()
    return [" ".join(str(cell).replace(" ", "_") for cell in row) for row in rows]


def broken(promised: Iterable[str], present: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each promise that the views do not keep."""
    kept = set(present)
    places = {_place(line): line for line in kept}
    for line in promised:
        if line not in kept:
            now = places.get(_place(line), "nothing")
            yield (
                f"{FILE.name} promises `{line}`, the views have `{now}`: columns of callflow's"
                " views are only appended, never removed, renamed, moved or retyped"
            )


def missing(promised: Iterable[str], present: Iterable[str]) -> list[str]:
    """Return the lines of columns that are not promised yet."""
    places = {_place(line) for line in promised}
    return [line for line in present if _place(line) not in places]


def merged(promised: Sequence[str], present: Sequence[str]) -> list[str]:
    """Return the lines of contract.txt with those that are missing, in order."""

    def order(line: str) -> tuple[str, int]:
        view, position = _place(line)
        return view, int(position)

    return sorted([*promised, *missing(promised, present)], key=order)


def _place(line: str) -> tuple[str, str]:
    view, position, *_ = line.split(" ")
    return view, position


def append(url: str) -> None:
    """Append to contract.txt what the views of a warehouse have beyond it."""
    lines = merged(promised(), present(url))
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with running(find_binaries(os.environ)) as cluster:
        append(cluster.server.url(cluster.migrated))
