"""The JSON Schema (draft 7) of callflow.toml, made of the models of the settings.

It refuses nothing that `load` accepts. What a table lacks is no error in it, because the rest may
come from the environment; nor is what only a look at two keys together can show.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from etl.config.draft import TABLES, is_secret
from etl.config.settings import Schedule, Source, StreamOptions, Table
from etl.providers.declare import Provider

Schema = dict[str, Any]

_NO_KEYS = ("name", "options", "schedule")
"""Fields of a source that no key of its table sets."""


def schema(providers: tuple[Provider, ...]) -> Schema:
    """Return the schema; a source is one of `providers`, and has no key of another one."""
    name = next(each.pattern for each in Source.model_fields["name"].metadata)
    sources = {
        "type": "object",
        "description": "The accounts that are read, each a table with its own name.",
        "patternProperties": {name: {"oneOf": [_source(each) for each in providers]}},
        "additionalProperties": False,
    }
    tables = {each: _table(model) for each, model in TABLES.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "callflow.toml",
        **_closed({**tables, "sources": sources}),
    }


def _source(provider: Provider) -> Schema:
    """Return the schema of the table of a source of that provider."""
    names = list(provider.names)
    table = _table(provider.settings, _NO_KEYS)
    keys = table["properties"]
    keys["provider"] = {
        "const": provider.name,
        "description": f"{provider.title}: {provider.setup}",
    }
    keys["streams"] |= {"items": {"enum": names}, "minItems": 1, "uniqueItems": True}
    keys["schedule"] = _table(Schedule)
    keys |= {each: _table(StreamOptions) for each in names}
    return {"title": provider.title, **table, "required": ["provider"]}


def _table(model: type[Table], without: tuple[str, ...] = ()) -> Schema:
    """Return the schema of a table of that model, which may have a secret or its file."""
    made = model.model_json_schema()["properties"]
    keys: dict[str, Schema] = {}
    secrets = []
    for name, info in model.model_fields.items():
        if name in without:
            continue
        keys[name] = _key(made[name], info.get_default())
        if is_secret(info):
            secrets.append(name)
            said = f"a file that holds only this: {info.description}"
            example = f"/run/secrets/{name}"
            keys[f"{name}_file"] = {"type": "string", "description": said, "examples": [example]}
    both = [{"not": {"required": [name, f"{name}_file"]}} for name in secrets]
    return {
        "description": " ".join((model.__doc__ or "").partition("\n\n")[0].split()),
        **_closed(keys),
        **({"allOf": both} if both else {}),
    }


def _closed(keys: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(keys), "additionalProperties": False}


def _key(made: Schema, default: Any) -> Schema:
    """Return pydantic's schema of a field as that of its key: TOML has no null.

    `default` is the field's own, in Python's form.
    """
    found = {name: value for name, value in made.items() if name not in ("title", "writeOnly")}
    if "anyOf" in found:
        options = [each for each in found["anyOf"] if each != {"type": "null"}]
        if len(options) == 1:
            del found["anyOf"]
            found |= {name: value for name, value in options[0].items() if name != "writeOnly"}
        else:
            found["anyOf"] = options
    if isinstance(default, timedelta):
        found["default"] = _duration(default)
    elif found.get("default", 0) is None:
        del found["default"]
    return found


def _duration(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    units = ((3600, "h"), (60, "m"), (1, "s"))
    return next(f"{seconds // size}{unit}" for size, unit in units if seconds % size == 0)
