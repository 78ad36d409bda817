"""The tables of a draft → frozen settings, or one problem per key in words that hold no value."""

import contextlib
import json
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from etl.config.draft import PLACEHOLDER, TABLES, Draft, dotted, keys_of, kinds, unknown_key
from etl.config.files import read_text
from etl.config.hosts import is_loopback, is_private
from etl.config.lines import Key
from etl.config.settings import Schedule, Settings, Source, Table
from etl.config.values import did_you_mean
from etl.errors import ConfigError

_TYPES = {str: "text", bool: "true or false", int: "a number", float: "a decimal number"}
_TYPES |= {list: "a list", dict: "a table"}  # what else TOML has is a date or a time

A_NAME = "a name of at most 40 characters (a-z, 0-9, _) that starts with a letter"


def check(draft: Draft) -> Settings | None:
    """Validate the draft's tables and add its problems; return None if it cannot be used."""
    for key, table, model in draft.tables():
        _prepare(key, table, model, draft)
    _refuse_private_hosts(draft)
    return _validate(draft)


def _prepare(path: Key, table: dict[str, Any], model: type[Table], draft: Draft) -> None:
    """Give the table's values the types that pydantic checks, and look at them together."""
    for name, info in model.model_fields.items():
        key, value = (*path, name), table.get(name)
        if isinstance(value, str) and key in draft.variables:
            table[name] = value = from_text(info.annotation, value)
        if name in ("data_dir", "ca_file") and isinstance(value, str) and value:
            with contextlib.suppress(ConfigError):
                table[name] = str(draft.path(value, key))
        if any(isinstance(item, str) and PLACEHOLDER.fullmatch(item) for item in _listed(value)):
            draft.content_problem(key, f"is still the placeholder; expected {info.description}")
        elif name == "ca_file" and isinstance(value, str) and value:
            _look_at_certificates(Path(table[name]), key, draft)
    for name, message in model.conflicts(table).items():
        draft.problem((*path, name), message)


def from_text(kind: Any, text: str) -> Any:
    """Return what a variable's text means to a key of type `kind`; as it is where that is none."""
    each_kind = kinds(kind)
    with contextlib.suppress(ValueError, RecursionError):
        if kind in (int, float):
            return kind(text)
        if bool in each_kind and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if any(get_origin(each) is tuple for each in each_kind):
            listed = text.lstrip().startswith("[")
            return json.loads(text) if listed else [item.strip() for item in text.split(",")]
    return text


def _look_at_certificates(file: Path, key: Key, draft: Draft) -> None:
    try:
        text, _ = read_text(file, 8 << 20)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ConfigError as error:
        draft.problem(key, f"{error.what}; expected a file of certificates in PEM form")
    except (ssl.SSLError, ValueError, OSError):
        draft.problem(key, "holds no certificate; expected a file of certificates in PEM form")


def _refuse_private_hosts(draft: Draft) -> None:
    """Check the URLs that requests go to; what a name resolves to is checked on connecting."""
    general = draft.tree.get("network")
    allowed = general.get("allow_private_hosts") if isinstance(general, dict) else None
    for path, table, model in draft.tables():
        own = table.get("allow_private_hosts")
        if (allowed if own is None else own) is True:
            continue
        for name in model.model_fields:
            url = table.get(name) if name.endswith("_url") or name == "alert_webhook" else None
            with contextlib.suppress(ValueError):
                parts = urllib.parse.urlsplit(url if isinstance(url, str) else "")
                host = parts.hostname or ""
                if parts.scheme == "https" and is_private(host) and not is_loopback(host):
                    draft.problem((*path, name), _private(name))


def _private(name: str) -> str:
    where = "[network]" if name == "alert_webhook" else "[network] or for the source"
    return (
        "leads to a private network or a cloud's metadata service; expected a public host; if this"
        f" is intended, set allow_private_hosts = true in {where}"
    )


def _validate(draft: Draft) -> Settings | None:
    for name in draft.tree.keys() - {"sources", *TABLES}:
        draft.problem((name,), unknown_key(name, ["sources", *TABLES]))
        del draft.tree[name]
    models = {path: model for path, _, model in draft.tables()}
    tree = {**draft.tree, "path": draft.file}
    if isinstance(draft.tree.get("sources"), dict):
        _name_sources(draft)
        tree["sources"] = _sources(models, draft)
    tree["warnings"] = tuple(draft.warnings)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        for found in error.errors(include_input=False, include_url=False):
            _explain(found, (), models, draft)
        return None


def is_name(text: str) -> bool:
    """Return whether a source can be called that."""
    return bool(re.fullmatch("[a-z][a-z0-9_]{0,39}", text))


def _name_sources(draft: Draft) -> None:
    """Give each source the name of its table."""
    for name, table in draft.sources().items():
        if not is_name(name):
            fit = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:40] or "zoom_eu"
            draft.problem(("sources", name), f"expected {A_NAME}; for example [sources.{fit}]")
        if isinstance(table, dict):
            if "name" in table:
                message = "unknown key; a source has the name of its table, as in [sources.zoom_eu]"
                draft.problem(("sources", name, "name"), message)
            table["name"] = name


def _sources(models: Mapping[Key, type[Table]], draft: Draft) -> dict[str, Source]:
    """Validate each source by its provider's model; leave out those with a problem."""
    read: dict[str, Source] = {}
    for name, table in draft.sources().items():
        key = ("sources", name)
        if not isinstance(table, dict):
            draft.problem(key, _no_table(key))
        elif key not in models:
            draft.problem((*key, "provider"), _provider_problem(key, draft))
        else:
            streams = draft.streams(key)
            _check_streams(key, table, draft)
            given = {each: value for each, value in table.items() if each not in streams}
            if "options" in given:
                known = keys_of(models[key], streams)
                draft.problem((*key, "options"), unknown_key("options", known))
            given["options"] = {each: table[each] for each in streams if each in table}
            try:
                read[name] = draft.providers[table["provider"]].settings.model_validate(given)
            except ValidationError as error:
                for found in error.errors(include_input=False, include_url=False):
                    _explain(found, key, models, draft)
    return read


def _check_streams(at: Key, table: dict[str, Any], draft: Draft) -> None:
    """Check which streams the source at `at` chooses, and warn of options of all others."""
    key, given, known = (*at, "streams"), table.get("streams"), draft.streams(at)
    if given is None:
        return
    listed = ", ".join(json.dumps(name) for name in known)
    example = f"for example {draft.example(key, Source.model_fields['streams'], [known[0]])}"
    wrong = [each for each in given if each not in known] if isinstance(given, list) else []
    if not isinstance(given, list):
        message = f"expected a list of streams, not {_TYPES.get(type(given), 'a date or a time')}"
        draft.problem(key, f"{message}; known here: {listed}; {example}")
    elif not given:
        message = f"expected one stream or more; known here: {listed}"
        draft.problem(key, f"{message}; to sync all of them, leave the key out")
    elif wrong:
        message = f"names no stream of this provider; known here: {listed}"
        draft.problem(key, message + did_you_mean(wrong[0], known))
    elif len(set(given)) < len(given):
        draft.problem(key, f"lists the same stream twice; {example}")
    else:
        for name in (each for each in known if each in table and each not in given):
            here = (*at, name)
            what = "this stream is not one of the source's streams, so its options have no effect"
            draft.warnings.append(f"{dotted(here)}{draft.place(here)}: {what}")


def refusal(model: type[Table], name: str, value: Any) -> str:
    """Return why the key `name` of a table of that model cannot have `value`; "" if it can."""
    info = model.model_fields[name]
    if any(PLACEHOLDER.fullmatch(str(each)) for each in _listed(value)):
        return f"is still the placeholder; expected {info.description}"
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        for found in error.errors(include_input=False, include_url=False):
            if found["loc"][:1] == (name,):
                example = f"; for example {info.examples[0]}" if info.examples else ""
                wanted = (
                    found["msg"] if found["type"] == "problem" else f"expected {info.description}"
                )
                return wanted + ("" if wanted.endswith("?") else example)
    return ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _explain(error: ErrorDetails, at: Key, models: Mapping[Key, type[Table]], draft: Draft) -> None:
    """Turn one of pydantic's errors about the table `at` into a problem of its key."""
    kind, inside = error["type"], tuple(str(part) for part in error["loc"])
    key = (*at, *(inside[1:] if inside[:1] == ("options",) else inside))
    if kind == "extra_forbidden":
        streams = draft.streams(at) if len(key) == 3 else ()
        draft.problem(key, unknown_key(key[-1], keys_of(models[key[:-1]], streams)))
        return
    if key[:-1] not in models and key[:-2] in models:
        kind, key = "item", key[:-1]
    known = ("conflict", "default_factory_not_called")  # the latter follows from another key
    if kind in known or key in draft.unread or (len(key) == 3 and key[2] == "name"):
        return  # reported already
    info = models[key[:-1]].model_fields.get(key[-1]) if key[:-1] in models else None
    if info is None or info.annotation is Schedule:
        draft.problem(key, _no_table(key))
        return
    message = error["msg"] if kind == "problem" else f"expected {info.description}"
    if kind == "missing":
        message = f"missing; {message}"
    elif kind.endswith("_type"):
        value: Any = draft.tree
        for part in key:
            value = value[part]
        message += f", not {_TYPES.get(type(value), 'a date or a time')}"
    suggested = message.endswith("?")
    draft.content_problem(key, message, "" if suggested else draft.example(key, info))


def _no_table(key: Key) -> str:
    own = len(key) == 3 or key[0] in TABLES
    return f"expected a table, such as {f'[{dotted(key)}]' if own else '[sources.zoom_eu]'}"


def _provider_problem(key: Key, draft: Draft) -> str:
    sources = draft.tree["sources"]
    given, names = sources[key[1]].get("provider"), [f'"{name}"' for name in draft.providers]
    wanted = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    if given is not None:
        return f"expected {wanted}{did_you_mean(given, draft.providers)}"
    message = f"missing; expected {wanted}; for example provider = {names[0]}"
    if all((*key, name) in draft.variables for name in sources[key[1]].keys() - {"name"}):
        others = sources.keys() - {key[1]}
        message += f"; only environment variables name this source{did_you_mean(key[1], others)}"
    return message
