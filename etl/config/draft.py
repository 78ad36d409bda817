"""The configuration before it is validated: its tables, where each value is from, what is wrong."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from etl.config.lines import Key
from etl.config.settings import Daemon, Network, Schedule, Security, Table, Warehouse
from etl.config.values import did_you_mean
from etl.errors import ConfigError
from etl.providers.declare import Provider

TABLES: Mapping[str, type[Table]] = {
    "warehouse": Warehouse,
    "schedule": Schedule,
    "daemon": Daemon,
    "network": Network,
    "security": Security,
}
"""The tables of callflow.toml besides those of its sources."""
PLACEHOLDER = re.compile(r".*….*|[A-Z]{0,2}\.\.\.", re.DOTALL)
"""What the example has for a value that it cannot know."""


@dataclass
class Draft:
    """The merged tables before validation: where each value is from, and what is wrong so far.

    `tree`      the tables of the file, with the variables and the secret files merged in.
    `lines`     the line in the file of each key.
    `variables` the variable that a key's value is from; its name is as it was given.
    `problems`  what is wrong with a key, in words that hold no value.
    `unread`    secrets whose file could not be read; they get no other message.
    `from_file` secrets that are what a file holds.
    `warnings`  what should be changed although nothing is refused for it.
    """

    file: Path | None
    providers: Mapping[str, Provider]
    tree: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[Key, int] = field(default_factory=dict)
    variables: dict[Key, str] = field(default_factory=dict)
    problems: dict[Key, str] = field(default_factory=dict)
    unread: set[Key] = field(default_factory=set)
    from_file: set[Key] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def problem(self, key: Key, message: str) -> None:
        """Keep the first problem of a key; those that follow from it would only be noise."""
        self.problems.setdefault(key, message)

    def tables(self) -> Iterator[tuple[Key, dict[str, Any], type[Table]]]:
        """Yield every table of a known kind, with its path and the model that knows its keys."""
        for name, model in TABLES.items():
            if isinstance(table := self.tree.get(name), dict):
                yield (name,), table, model
        for name, table in self.sources().items():
            provider = table.get("provider") if isinstance(table, dict) else None
            if isinstance(provider, str) and provider in self.providers:
                yield ("sources", name), table, self.providers[provider].settings
                for part, inner in self.providers[provider].parts.items():
                    if isinstance(given := table.get(part), dict):
                        yield ("sources", name, part), given, inner

    def sources(self) -> dict[str, Any]:
        """Return what the table of sources holds; {} where it is no table."""
        sources = self.tree.get("sources")
        return sources if isinstance(sources, dict) else {}

    def parts(self) -> set[str]:
        """Return the names of tables inside a source's table, of all providers."""
        return {part for provider in self.providers.values() for part in provider.parts}

    def streams(self, source: Key) -> tuple[str, ...]:
        """Return the names of the streams of the source at `source`, whose provider is known."""
        provider = self.tree["sources"][source[1]]["provider"]
        return self.providers[provider].names

    def content_problem(self, key: Key, message: str, example: str = "") -> None:
        """Keep a problem of a value; of one from a file, as a problem of the key of that file."""
        if key in self.from_file:
            self.problem((*key[:-1], key[-1] + "_file"), f"in that file: {message}")
        else:
            self.problem(key, f"{message}; for example {example}" if example else message)

    def place(self, key: Key) -> str:
        """Return where a person finds the key: the variable, the line, or its table's line."""
        if key in self.variables:
            return f" ({self.variable(key)})"
        table = key[:-1] if key[:-1] != ("sources",) else key  # a source is not inside another one
        line = self.lines.get(key) or self.lines.get(table)
        return f" (line {line})" if line else ""

    def variable(self, key: Key) -> str:
        """Return the name of the variable that the value of `key` is from, with its dollar sign."""
        return dotted(("$" + self.variables[key],))

    def example(self, key: Key, info: FieldInfo, value: Any = None) -> str:
        """Return `value`, or `info`'s example, in the form in which the key is given."""
        value = value or (info.examples or ["/run/secrets/" + key[-1]])[0]
        suffix = "" if info.examples else "_file"
        if key in self.variables:
            text = ",".join(value) if isinstance(value, list) else value
            return f"{dotted((self.variables[key] + suffix.upper(),))}={text}"
        return f"{key[-1]}{suffix} = {json.dumps(value)}"

    def path(self, given: str, key: Key) -> Path:
        """Return the absolute path that `given` means at `key`.

        From a variable it is relative to the working directory, from the file to the file's own.
        Raises ConfigError for a home directory that does not exist.
        """
        base = Path() if key in self.variables or not self.file else self.file.parent
        try:
            return (base / Path(given).expanduser()).absolute()
        except (OSError, RuntimeError):
            raise ConfigError("expected a path that exists") from None

    def error(self) -> ConfigError:
        """Return the error that reports every problem, one line each."""
        lines = [f"{dotted(k)}{self.place(k)}: {m}" for k, m in sorted(self.problems.items())]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        where = str(self.file or "environment")
        return ConfigError("\n  ".join([count, *lines]), where=where)


def dotted(key: Key) -> str:
    """Return the key as messages show it; parts that are no plain words are quoted and cut."""
    bare = re.compile(r"[$\w-]{1,80}", re.ASCII)
    return ".".join(part if bare.fullmatch(part) else json.dumps(part[:80]) for part in key)


def unknown_key(word: str, known: Collection[str]) -> str:
    """Return the message about a key that its table does not have."""
    return "unknown key" + (did_you_mean(word, known) or f"; known here: {', '.join(known)}")


def keys_of(model: type[Table], streams: Collection[str] = ()) -> list[str]:
    """Return the keys of a table, the model's own ones before those that all sources have."""
    names = dict.fromkeys([*model.__annotations__, *model.model_fields])
    shown = [name for name in names if name in model.model_fields.keys() - {"name", "options"}]
    fields = {name: model.model_fields[name] for name in shown}
    files = [f"{name}_file" for name, info in fields.items() if is_secret(info)]
    return [*fields, *sorted(streams), *files]


def is_secret(info: FieldInfo) -> bool:
    """Return whether a key holds a secret, so that it can also come from a file."""
    return SecretStr in kinds(info.annotation)


def kinds(kind: Any) -> list[Any]:
    """Return the type, and those that it is a union or an annotation of."""
    inner = [] if get_origin(kind) is tuple else get_args(kind)
    return [kind, *(found for each in inner for found in kinds(each))]
