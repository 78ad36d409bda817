"""`callflow export`: the views of the schema `callflow` as files, all as of one instant."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Connection, text

from etl.commands import values
from etl.commands.access import reading
from etl.commands.moments import as_moment
from etl.commands.output import quiet, shows_progress, stderr, stdout
from etl.commands.rows import write_objects
from etl.commands.signals import cancelling
from etl.config.redact import Redactor, harmless
from etl.config.settings import Settings
from etl.errors import ConfigError
from etl.status import flows
from etl.status.drawing import short
from etl.warehouse.model.definition import ViewDefinition
from etl.warehouse.views import all_views

_BATCH = 10_000
"""Rows that are held at once."""


def run(
    settings: Settings,
    redact: Redactor,
    directory: Path,
    form: str,
    at: str | None,
    *,
    history: bool,
    as_json: bool,
) -> None:
    """Write the views as of `at` to `directory`, in the `form` "csv" or "parquet"."""
    moment = as_moment(at, "--at")
    _require_new(directory)
    if form == "parquet" and find_spec("pyarrow") is None:
        raise ConfigError(
            "pyarrow is not installed",
            where="export",
            advice="pip install '/path/to/callflow[parquet]', or take --format csv",
        )
    names = [name for name in views() if history or not name.endswith("_history")]
    write = write_csv if form == "csv" else write_parquet
    with (
        cancelling(),
        reading(settings, redact) as (engine, _),
        flows.snapshot(engine, redact, "export") as connection,
        _made(directory) as place,
        _Bar(stderr()) as bar,
    ):
        if moment is not None:
            setting = text("SELECT set_config('callflow.at', :at, true)")
            connection.execute(setting, {"at": moment.isoformat()})
        counts = {}
        for name in names:
            file = place / f"{name}.{form}"
            counts[file.name] = write(connection, name, file, bar.shown(file.name))
    if as_json:
        write_objects({"file": name, "rows": count} for name, count in counts.items())
    for file_name, count in () if as_json else counts.items():
        stdout().print(f"{file_name:<36} {count:>12,} row{'' if count == 1 else 's'}")
    sys.stdout.flush()
    if not quiet():
        stderr().print(f"Wrote {len(counts)} files to {escape(harmless(str(directory)))}.")


def views() -> list[str]:
    """Return the names of our views in the schema callflow, without the schema."""
    return [
        each.name.removeprefix("callflow.")
        for each in all_views()
        if isinstance(each, ViewDefinition) and each.name.startswith("callflow.")
    ]


# --- the directory -------------------------------------------------------------------------------
def _require_new(directory: Path) -> None:
    """Raise ConfigError unless there is nothing of that name, or an empty directory."""
    try:
        taken = os.path.lexists(directory) and not (
            directory.is_dir() and not directory.is_symlink() and not any(directory.iterdir())
        )
    except ValueError:
        raise ConfigError("is not a valid path", where="DIR", advice="name another one") from None
    except OSError:  # a directory that cannot be read
        taken = True
    if taken:
        raise ConfigError(
            "already exists and is not empty; it was not changed",
            where=str(directory),
            advice="name another directory, or remove this one",
        )


@contextmanager
def _made(directory: Path) -> Iterator[Path]:
    """Yield a new directory beside `directory`, which gets its name if nothing goes wrong.

    Raises ConfigError if it cannot be written, or if `directory` is there by then.
    """
    place = directory.parent / f".callflow-{secrets.token_hex(6)}"
    try:
        place.mkdir()
        yield place
        _require_new(directory)
        place.rename(directory)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror or short(str(error), 200)}",
            where=str(directory),
            advice="choose another path, make the directory it is in, or free space",
        ) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Bar:
    """Shows which file is being written, and its rows so far: on a terminal only."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<36}"),
            TextColumn("{task.completed:>12,} rows"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not (console.is_terminal and shows_progress()),
        )
        self._task = self._progress.add_task("", total=None)

    def shown(self, name: str) -> Callable[[int], None]:
        """Start with another file; return what to call with the number of its rows so far."""
        self._progress.reset(self._task, description=name)
        return lambda rows: self._progress.update(self._task, completed=rows)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


# --- the files -----------------------------------------------------------------------------------
def write_csv(
    connection: Connection, view: str, file: Path, progress: Callable[[int], None]
) -> int:
    """Write a view of the schema callflow as CSV, as COPY does; return how many rows it has."""
    query = sql.SQL("COPY (SELECT * FROM callflow.{}) TO STDOUT WITH (FORMAT csv, HEADER)")
    rows = -1  # the header is none
    with (
        file.open("wb") as opened,
        _raw(connection).cursor() as cursor,
        cursor.copy(query.format(sql.Identifier(view))) as copied,
    ):
        for line in copied:  # Postgres sends one row in each message
            opened.write(line)
            rows += 1
            if rows % _BATCH == 0:
                progress(rows)
    return rows


def write_parquet(
    connection: Connection, view: str, file: Path, progress: Callable[[int], None]
) -> int:
    """Write a view of the schema callflow as Parquet; return how many rows it has."""
    import pyarrow
    from pyarrow import parquet

    count = 0
    with _raw(connection).cursor(name="export") as cursor:
        cursor.itersize = _BATCH
        values.keep_everything(cursor)
        cursor.execute(sql.SQL("SELECT * FROM callflow.{}").format(sql.Identifier(view)))
        described = cursor.description or []
        kinds = [_arrow_type(column.type_code) for column in described]
        fields = zip((column.name for column in described), kinds, strict=True)
        schema = pyarrow.schema([pyarrow.field(*each) for each in fields])
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            while rows := list(islice(cursor, _BATCH)):
                columns = zip(zip(*rows, strict=True), kinds, strict=True)
                arrays = [pyarrow.array(_plain(column, kind), kind) for column, kind in columns]
                writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
                count += len(rows)
                progress(count)
    return count


def _raw(connection: Connection) -> psycopg.Connection[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _arrow_type(oid: int) -> Any:
    """Return the type of a column in Arrow: text for every type that is not listed here."""
    import pyarrow

    names = {info.oid: info.name for info in psycopg.adapters.types}
    return {
        "bool": pyarrow.bool_(),
        "int2": pyarrow.int16(),
        "int4": pyarrow.int32(),
        "int8": pyarrow.int64(),
        "float8": pyarrow.float64(),
        "date": pyarrow.date32(),
        "timestamptz": pyarrow.timestamp("us", tz="UTC"),
    }.get(names.get(oid, ""), pyarrow.string())


def _plain(column: Sequence[Any], kind: Any) -> Sequence[Any]:
    """Return the values of a column; those that Arrow gets as text are made text."""
    import pyarrow

    if kind != pyarrow.string():
        return column
    return [None if value is None else values.as_text(value) for value in column]
