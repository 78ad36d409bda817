"""What a declared provider must have: each omission is a sentence that says what to add.

A recorded answer of each stream is in `tests/providers/PROVIDER/STREAM.json`: one that the
provider's own document shows. That each table is in a migration, `tests/warehouse/test_migrate.py`
checks for all tables at once.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from sqlalchemy import DateTime, Table

from etl.config.draft import is_secret
from etl.config.load import load
from etl.config.settings import Source
from etl.errors import ConfigError
from etl.extract.page import Page
from etl.providers.declare import Provider, Stream, on_absent, request
from etl.transform.rows import Rows
from etl.warehouse import tables
from etl.warehouse.model.assemble import unused
from etl.warehouse.model.contract import VIEWS
from etl.warehouse.model.lists import LISTS, named

RECORDED = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Declared:
    """A provider, the folder of its recorded answers, and one for files of ours."""

    provider: Provider
    recorded: Path
    scratch: Path


def omissions(declared: Declared) -> Iterator[str]:
    """Yield everything that the declaration forgets, as sentences that say what to add."""
    provider = declared.provider
    found = [*prose(provider), *settings(provider)]
    yield from found
    source = None
    try:
        source = loaded(declared)
    except ConfigError as error:
        yield f"{provider.name}: its example is no source ({error.what}) → mend `example`"
    for stream in provider.streams:
        yield from described(provider, stream)
        yield from fields(provider, stream)
        yield from calls(provider, stream)
        yield from parts(provider, stream)
        if source is not None and not found:
            yield from options(declared, stream)
            yield from recorded(declared, stream, source)


def unemulated(
    providers: Iterable[Provider], emulated: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """Yield what the sandbox lacks; `emulated` is provider → the lists of its emulator."""
    for provider in providers:
        if provider.name not in emulated:
            yield f"{provider.name}: no emulator → add one to EMULATORS of etl/sandbox/server.py"
            continue
        for stream in provider.streams:
            if stream.name not in emulated[provider.name]:
                where = f"{provider.name}.{stream.name}"
                yield f"{where}: not emulated → add the list to etl/sandbox/{provider.name}.py"


def prose(provider: Provider) -> Iterator[str]:
    for name in ("title", "comment", "setup", "credentials", "rights", "example"):
        if not getattr(provider, name).strip():
            yield f"{provider.name}: no {name} → add `{name}` to its Provider"
    if not provider.streams:
        yield f"{provider.name}: no stream → add one to `declared`"
    names = tuple(each.name for each in provider.streams)
    if provider.names != names:
        yield f"{provider.name}: `names` are not those of its streams → {', '.join(names)}"


def settings(provider: Provider) -> Iterator[str]:
    """Yield omissions of a source's model: names of nothing, keys that no message can describe."""
    model, shown = provider.settings, uncommented(provider)
    known = model.model_fields
    named = [("account", getattr(model, "account", "")), ("scopes", model.scopes)]
    named += [("zone", model.zone), *(("logins", key) for pair in model.logins for key in pair)]
    for variable, key in named:
        if key is not None and key not in known:
            yield f"{model.__name__}.{variable} is {key!r}, no key → name a key of the model"
    if known["provider"].default != provider.name:
        yield f'{model.__name__} is of another provider → provider: Literal["{provider.name}"]'
    own = [key for key in known if key not in Source.model_fields]
    for key in own:
        info = known[key]
        if not info.description:
            yield f"{model.__name__}.{key}: no description → say what messages shall expect"
        if not info.examples and not is_secret(info):
            yield f"{model.__name__}.{key}: no examples → add one for messages"
    for key in (*own, "base_url", "requests_per_second"):
        default = known[key].default
        if key not in shown:
            yield f"{provider.name}: its example lacks {key} → add it to `example`"
        elif default not in (None, PydanticUndefined, shown[key]):
            yield f"{provider.name}: {key} is not the default in its example → show {default!r}"


def uncommented(provider: Provider) -> dict[str, Any]:
    """Return the keys of the example with their values, also of alternatives."""
    lines = re.findall(r"(?m)^(\w+ = [^#\n]*)", provider.example)
    return {key: value for line in lines for key, value in tomllib.loads(line).items()}


def described(provider: Provider, stream: Stream) -> Iterator[str]:
    """Yield the stream's tables and columns that have no description."""
    where, record = f"{provider.name}.{stream.name}", stream.tables[0]
    if stream.tables != tables.family(record):
        yield f"{where}: `tables` is not a record's table and its children → family({record.name})"
    for table in stream.tables:
        if table.schema != provider.name:
            yield f"{table.fullname} is not in the provider's schema → name it {provider.name}.…"
        every: list[Any] = [table, *table.columns]
        for each in every:
            if not each.comment:
                yield f"{each} of {where}: no comment → say what it holds"


def fields(provider: Provider, stream: Stream) -> Iterator[str]:
    """Yield names in the stream that are neither columns of its table nor keys of the settings."""
    where, record = f"{provider.name}.{stream.name}", stream.tables[0]
    known = provider.settings.model_fields
    if stream.modified is not None and (
        stream.modified not in record.columns
        or not isinstance(record.columns[stream.modified].type, DateTime)
    ):
        yield f"{where}: `modified` is {stream.modified!r} → name a time column of {record.name}"
    if stream.scope is not None:
        if stream.scope not in tables.key_columns(record):
            yield f"{where}: `scope` is {stream.scope!r} → name a key column of {record.name}"
        if provider.settings.scopes is None:
            yield f"{where}: has a `scope` → let `scopes` of the settings name the key with them"
    for name in stream.detail.fingerprint if stream.detail else ():
        if name not in record.columns:
            yield f"{where}: `detail.fingerprint` has {name!r} → name columns of {record.name}"
    if stream.origin not in known:
        yield f"{where}: `origin` is {stream.origin!r} → name a key of the settings"
    if stream.name in (*known, "schedule", "options"):
        yield f"{where}: is a key of the settings too → give the stream another name"


def calls(provider: Provider, stream: Stream) -> Iterator[str]:
    """Yield functions that do not take the arguments they are called with."""
    wanted: dict[str, tuple[Callable[..., Any] | None, str]] = {
        "auth": (stream.auth, "(source, seam)"),
        "pages": (stream.pages, "(http, request)"),
        "transform": (stream.transform, "(page, ordinal)"),
        "look_up": (stream.look_up, "(http, key)"),
        "probe": (stream.probe, "(http, request)"),
        "detail.fetch": (stream.detail.fetch if stream.detail else None, "(http, wanted)"),
    }
    for name, (function, arguments) in wanted.items():
        try:
            if function is not None:
                inspect.signature(function).bind(None, None)
        except TypeError:
            where = f"{provider.name}.{stream.name}"
            yield f"{where}: `{name}` cannot be called → let it take {arguments}"


def parts(provider: Provider, stream: Stream) -> Iterator[str]:
    """Yield what keeps the stream's parts from the views of the schema callflow."""
    where, known = f"{provider.name}.{stream.name}", [view.name for view in (*VIEWS, *LISTS)]
    views = {part.view for each in provider.streams for part in each.parts}
    if "flows" not in views:
        yield f"{where}: no part of callflow.flows → add a Part of that view to `parts`"
    for part in stream.parts:
        which = f"{where}: its part of {part.view}"
        if part.view not in known:
            yield f"{which} is of no view → name one of {', '.join(known)}"
            continue
        if part.table not in stream.tables:
            yield f"{which} reads {part.table} → name one of the stream's `tables`"
        view = named(part.view)
        for name in unused(view, part):
            yield f"{which} gives {name}, which the view has not → name one of its columns"
        given = {*part.columns, *part.looked_up, "provider", "source", "valid_from"}
        times = [column.name for column in view.columns if column.kind == "timestamptz"]
        of_flow = [column.name for column in view.columns if column.name == "flow_id"]
        if part.flows is not None and part.each:
            yield f"{which} leads to flows, and makes several rows of one → make a part for each"
        for name in dict.fromkeys((*of_flow, *view.key, *times[:1])):
            if name not in given:
                yield f"{which} lacks {name} → give it in `columns`"


def loaded(declared: Declared, more: str = "") -> Source:
    """Return the source in the example's first paragraph, with its placeholders filled in."""
    provider = declared.provider
    paragraph = provider.example.strip().partition("\n\n")[0]

    def filled(match: re.Match[str]) -> str:
        info = provider.settings.model_fields[match[1]]
        return f"{match[1]} = {json.dumps((info.examples or ['x' * 20])[0])}"

    text = re.sub(r'(?m)^(\w+) = (?:"…"|\["…"\])', filled, paragraph)
    name = re.findall(r"(?m)^\[sources\.(\w+)\]", text)[0]
    file = declared.scratch / "callflow.toml"
    file.write_text(text + "\n" + more.replace("NAME", name))
    file.chmod(0o600)
    return load(file, {}, (provider,)).sources[name]


def options(declared: Declared, stream: Stream) -> Iterator[str]:
    """Yield options of the stream in callflow.toml that do not reach their reader."""
    where = f"{declared.provider.name}.{stream.name}"
    for chosen in ("keep", "confirm"):
        more = f'[sources.NAME.{stream.name}]\non_absent = "{chosen}"\n'
        try:
            if on_absent(loaded(declared, more), stream) != chosen:
                yield f"{where}: on_absent of callflow.toml is ignored → see declare.on_absent"
        except ConfigError as error:
            yield f"{where}: cannot have options ({error.what}) → see Provider.parts"


def recorded(declared: Declared, stream: Stream, source: Source) -> Iterator[str]:
    """Yield what is wrong after loading the provider's example: rejects, empty tables, columns."""
    where, record = f"{declared.provider.name}.{stream.name}", stream.tables[0]
    file = declared.recorded / declared.provider.name / f"{stream.name}.json"
    if not file.exists():
        yield f"{where}: no recorded answer → add tests/providers/{where.replace('.', '/')}.json"
        return
    records = json.loads(file.read_text(encoding="utf-8"))
    for member in record.info["record"].split("."):
        records = records[member.removesuffix("[]")]
    ask = request(source, stream)
    rows = stream.transform(Page(records, 1, scope=ask.scopes[0], zone=ask.zone), 0)
    for reject in rows.rejects:
        yield f"{where}: a recorded record is rejected, {reject.reason} → mend its columns"
    for table in stream.tables:
        if not table.info["derived"] and not rows.tables.get(table.fullname):
            yield f"{where}: no row of {table.name} is recorded → record one, or mend `record`"
        modified = [stream.modified] if stream.modified and table is record else []
        for name in (*tables.key_columns(table), *modified):
            if name in table.columns and None in values(rows, table, name):
                yield f"{where}: {table.name}.{name} stays empty → mend its column's `json`"


def values(rows: Rows, table: Table, column: str) -> list[Any]:
    """Return a column's values in rows of COPY order: ordinal, whether partial, the columns."""
    before = 2 if table.info["parent"] is None else 1
    index = before + tables.data_columns(table).index(column)
    return [row[index] for row in rows.tables.get(table.fullname, [])]
