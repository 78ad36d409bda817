"""callflow.toml and the environment → frozen settings; all problems at once.

`load` merges the file, the secret files and the CALLFLOW_ variables into plain tables, lets
pydantic validate them, and turns whatever is wrong into one line per key. Messages name keys, files
and variables, never values: a value may be a secret, or a secret in the wrong place.
"""

import contextlib
import io
import json
import os
import re
import ssl
import stat
import tomllib
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import (
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from etl.config.hosts import is_loopback, is_private
from etl.config.settings import (
    Daemon,
    Network,
    Schedule,
    Security,
    Settings,
    Source,
    Table,
    Warehouse,
)
from etl.config.values import did_you_mean
from etl.errors import ConfigError
from etl.providers import PROVIDERS
from etl.providers.declare import Provider

_SINGLE: Mapping[str, type[Table]] = {
    "warehouse": Warehouse,
    "schedule": Schedule,
    "daemon": Daemon,
    "network": Network,
    "security": Security,
}
_NOT_SETTINGS = re.compile("CALLFLOW_(CONFIG|PG_BIN|PG_USER|TRACEBACK|TEST_.*)")
# Kubernetes sets these in every pod of a namespace that has a service named callflow or callflow-x.
_KUBERNETES = re.compile(
    r"CALLFLOW_(?:(?!.*__)\w+_)??(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)
_MOUNTED = (Path("/run/secrets"), Path("/var/run/secrets"), Path("/run/credentials"))
_PLACEHOLDER = re.compile(r".*….*|[A-Z]{0,2}\.\.\.", re.DOTALL)
_JSON_TYPES = {str: "text", bool: "true or false", int: "a number", float: "a number"}
_JSON_TYPES |= {list: "a list", dict: "a table"}
_NO_TABLE = "expected a table, such as [sources.zoom_eu] or [warehouse]"
Key = tuple[str, ...]


@dataclass
class _Draft:
    """The merged tables before validation: where each value is from, and what is wrong so far."""

    file: Path | None
    providers: Mapping[str, Provider]
    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)
    variables: dict[Key, str] = field(default_factory=dict)
    problems: dict[Key, str] = field(default_factory=dict)
    unread: set[Key] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def problem(self, key: Key, message: str) -> None:
        """Keep the first problem of a key; what follows from it would only be noise."""
        self.problems.setdefault(key, message)

    def tables(self) -> Iterator[tuple[Key, dict[str, Any], type[Table]]]:
        """Every table that is one, with its path and the model that knows its keys."""
        for name, model in _SINGLE.items():
            if isinstance(table := self.tree.get(name), dict):
                yield (name,), table, model
        sources = self.tree.get("sources")
        for name, table in sources.items() if isinstance(sources, dict) else ():
            provider = table.get("provider") if isinstance(table, dict) else None
            if isinstance(provider, str) and provider in self.providers:
                yield ("sources", name), table, self.providers[provider].settings
                for part, inner in self.providers[provider].parts.items():
                    if isinstance(given := table.get(part), dict):
                        yield ("sources", name, part), given, inner

    def parts(self) -> set[str]:
        """The names of tables inside a source's table, of all providers."""
        return {part for provider in self.providers.values() for part in provider.parts}

    def streams(self, source: Key) -> set[str]:
        """The names of the streams of the source at `source`, whose provider is known."""
        provider = self.tree["sources"][source[1]]["provider"]
        return {each.name for each in self.providers[provider].streams}

    def place(self, key: Key) -> str:
        """Where a person finds the key: the variable, the line, or the line of its table."""
        if key in self.variables:
            return f" ({_dotted(('$' + self.variables[key],))})"
        line = self.lines.get(key) or self.lines.get(key[:-1])
        return f" (line {line})" if line else ""

    def example(self, key: Key, info: FieldInfo) -> str:
        """`info`'s example in the form in which the key was or would be given."""
        value = (info.examples or ["/run/secrets/" + key[-1]])[0]
        suffix = "" if info.examples else "_file"
        if key in self.variables:
            text = ",".join(value) if isinstance(value, list) else value
            return f"{_dotted((self.variables[key] + suffix.upper(),))}={text}"
        return f"{key[-1]}{suffix} = {json.dumps(value)}"


def find(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Which file `load` reads: `path`, else $CALLFLOW_CONFIG, else ./callflow.toml if it exists."""
    if path or env.get("CALLFLOW_CONFIG"):
        return path or Path(env["CALLFLOW_CONFIG"])
    default = Path("callflow.toml")
    try:
        return default if default.exists() else None
    except OSError:  # a directory that may not be searched; reading the file will say so
        return default


def load(
    path: Path | None, env: Mapping[str, str], providers: tuple[Provider, ...] = PROVIDERS
) -> Settings:
    """Read the file that `find` names, the secret files and the CALLFLOW_ variables of `env`.

    A variable wins over the file. Without a file the variables and the defaults count; no source
    is no problem here, see `require_sources`. Of a source whose provider is not known, only that
    and its name can be judged.

    Raises ConfigError with one line per problem, all of them; it holds no value of any setting.
    """
    draft = _Draft(find(path, env), {provider.name: provider for provider in providers})
    exposed = draft.file is not None and _read_toml(draft.file, draft)
    _overlay(env, draft)
    inline = _read_secrets(draft)
    if exposed and inline:
        away = [key for key in inline if not _stays_here(key, draft)]
        if away:
            _exposed(away[0], "others can read this file, which holds secrets", draft)
        else:
            draft.warnings.append(f"{draft.file}: holds secrets and others can read it")
    for key, table, model in draft.tables():
        _prepare(key, table, model, draft)
    _refuse_private_hosts(draft)
    settings = _validate(draft)
    if draft.problems or settings is None:
        lines = [f"{_dotted(k)}{draft.place(k)}: {m}" for k, m in sorted(draft.problems.items())]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        where = str(draft.file or "environment")
        raise ConfigError("\n  ".join([count, *lines]), where=where)
    default = Schedule(every=timedelta(minutes=15), full_every=timedelta(hours=24))
    general = _inherit(settings.schedule, default)
    network = _reach(settings.network, settings.network)
    sources = {
        name: source.model_copy(
            update={
                "schedule": _inherit(source.schedule, general),
                **_reach(source, settings.network),
            }
        )
        for name, source in settings.sources.items()
    }
    return settings.model_copy(
        update={
            "schedule": general,
            "network": settings.network.model_copy(update=network),
            "sources": sources,
        }
    )


def require_sources(settings: Settings) -> None:
    """Raise ConfigError, as `no_sources` gives it, when there is nothing to sync from."""
    if error := no_sources(settings):
        raise error


def no_sources(settings: Settings) -> ConfigError | None:
    """What to tell when there is nothing to sync from: where sources were looked for."""
    if settings.sources:
        return None
    if settings.path:
        advice = "uncomment a [sources.…] table there and fill it in"
        return ConfigError("no sources", where=str(settings.path), advice=advice)
    return ConfigError(
        f"no configuration: no --config, no $CALLFLOW_CONFIG, no callflow.toml in {Path.cwd()}",
        advice="`callflow init` writes a callflow.toml to fill in; `callflow demo` needs none",
    )


def write_example(path: Path) -> None:
    """Write the commented example to the new file `path`, readable by its owner only.

    Raises ConfigError when the file exists already, or cannot be written.
    """
    text = resources.files("etl.config").joinpath("callflow.example.toml").read_bytes()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
    except FileExistsError:
        advice = "edit it, or name another file"
        raise ConfigError("exists already; left as it is", where=str(path), advice=advice) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a possible path"
        advice = "choose another path, or make the directory"
        raise ConfigError(f"cannot be written: {reason}", where=str(path), advice=advice) from None


def _read(file: Path, limit: int = 1 << 20) -> tuple[str, bool]:
    """The file's text, and whether others than its owner can read it."""
    try:
        with io.BufferedReader(io.FileIO(file, opener=_open_at_once)) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError("cannot be read: it is a pipe or a device; expected a file")
            data = opened.read(limit + 1)
            exposed = bool(mode & 0o077)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError("cannot be read: not a possible path") from None
    if len(data) > limit:
        raise ConfigError(f"is larger than {limit >> 10} KiB")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError("is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig"), exposed
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"is not UTF-8 (line {line}); save it as UTF-8") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would be waited for otherwise."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _read_toml(file: Path, draft: _Draft) -> bool:
    try:
        text, exposed = _read(file)
    except ConfigError as error:
        advice = "name another with --config or $CALLFLOW_CONFIG; `callflow init` writes a new one"
        raise ConfigError(error.what, where=str(file), advice=advice) from None
    slip = None
    try:
        draft.tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        slip = _syntax_error(str(error), text, file, draft)
    if (
        slip
    ):  # raised out here: newer Pythons' TOML error holds the text, as context it would travel
        raise slip
    table: Key = ()
    for number, line in enumerate(text.split("\n"), 1):
        if match := re.match(r"\s*\[([\w.\s\"-]+)\]", line):
            table = tuple(part.strip(' "') for part in match[1].split("."))
            draft.lines.setdefault(table, number)
        elif match := re.match(r'\s*"?([\w-]+)"?\s*=', line):
            draft.lines.setdefault((*table, match[1]), number)
    return exposed


def _syntax_error(message: str, text: str, file: Path, draft: _Draft) -> ConfigError:
    lines = text.split("\n")
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    number, column = (int(at[1]), int(at[2])) if at else (len(lines), len(lines[-1]) + 1)
    words = {"sources", *_SINGLE, *draft.providers, *draft.parts()}
    models = [*_SINGLE.values(), *(each.settings for each in draft.providers.values())]
    words.update(key for model in models for key in _keys(model))
    # What is not a word of ours may be a secret: the shape of the line is enough to see the slip.
    shape = re.sub(
        r"[^\s\[\]{}\"'=,#.]+",
        lambda word: word[0] if word[0] in words else "•" * len(word[0]),
        lines[number - 1].rstrip(),
    )
    return ConfigError(
        f"not valid TOML: {message.removesuffix(at[0]) if at else message}\n  {shape}\n"
        f"  {' ' * (column - 1)}^",
        where=f"{file}, line {number}, column {column}",
        advice='text needs quotes on both sides, as in key = "value"; each key stands once per'
        " table, on a line of its own; a backslash in text is written twice",
    )


def _overlay(env: Mapping[str, str], draft: _Draft) -> None:
    """Lay the CALLFLOW_ variables over the file's tables."""
    for variable in sorted(env):
        name = variable.upper().removeprefix("CALLFLOW_")
        if (
            name == variable.upper()
            or _NOT_SETTINGS.fullmatch(variable)
            or _KUBERNETES.fullmatch(variable)
        ):
            continue
        key = _variable_key(name.lower(), draft.parts())
        if key is None or not variable.isascii():
            known = ["CALLFLOW_CONFIG", "CALLFLOW_PG_BIN"]
            known += [f"CALLFLOW_{t}__{k}".upper() for t, m in _SINGLE.items() for k in _keys(m)]
            known += [f"CALLFLOW_SOURCES__{rest}" for rest in [name.partition("__")[2]] if rest]
            draft.problem(
                (f"${variable}",),
                "unknown variable; expected CALLFLOW_TABLE__KEY, or CALLFLOW_SOURCES__NAME__KEY"
                f"{did_you_mean(variable.upper(), known)}",
            )
            continue
        if key in draft.variables:
            draft.problem(key, f"given twice, also as{draft.place(key)}")
        table: Any = draft.tree
        for part in key[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            plain = key[-1].removesuffix("_file")
            other = plain if plain != key[-1] else plain + "_file"
            if (*key[:-1], other) not in draft.variables:
                table.pop(other, None)
            table[key[-1]] = env[variable]
            draft.variables[key] = variable


def _variable_key(name: str, parts: Collection[str]) -> Key | None:
    table, _, rest = name.partition("__")
    if table != "sources":
        return (table, rest) if table in _SINGLE and rest else None
    source, _, setting = rest.rpartition("__")
    if not source or not setting or setting in parts:
        return None
    name, _, part = source.rpartition("__")
    if name and part in parts:
        return ("sources", name, part, setting)
    return ("sources", source, setting)


def _read_secrets(draft: _Draft) -> list[Key]:
    """Replace each NAME_file by NAME. Returns the secrets that callflow.toml itself holds."""
    inline: list[Key] = []
    for path, table, model in draft.tables():
        for name in (n for n, info in model.model_fields.items() if _is_secret(info)):
            key, file_key = (*path, name), (*path, name + "_file")
            if name in table and key not in draft.variables:
                # Not the address of a proxy or a database is the secret, but its password.
                address = name in ("proxy", "url") and "@" not in str(table[name])
                inline += [] if address else [key]
            if name + "_file" not in table:
                continue
            given = table.pop(name + "_file")
            if name in table:
                draft.problem(file_key, f"given together with {name}; expected one of the two")
                continue
            try:
                table[name] = _secret(given, file_key, draft)
            except ConfigError as error:
                draft.problem(file_key, f"{error.what}; expected a file that holds only the secret")
                draft.unread.add(key)
                table[name] = ""
    return inline


def _secret(given: Any, key: Key, draft: _Draft) -> str:
    if not isinstance(given, str) or not given:
        raise ConfigError("expected a path, as text")
    if _PLACEHOLDER.fullmatch(given):
        raise ConfigError("is still the placeholder")
    path = _path(given, key, draft)
    text, exposed = _read(path, 1 << 16)
    if not text.strip():
        raise ConfigError("the file is empty")
    # Docker and Kubernetes mount secrets as 0444; nobody but the container is there to read them.
    # systemd gives its credentials to one service by an access list, which a mode cannot tell.
    if exposed and not any(path.is_relative_to(mounted) for mounted in _MOUNTED):
        _exposed(key, "others can read that file", draft)
    return text.rstrip("\r\n")


def _stays_here(key: Key, draft: _Draft) -> bool:
    """Whether a secret of callflow.toml is of use on this machine only, as an emulator's is."""
    table: Any = draft.tree
    for part in key[:-1]:
        table = table[part]
    url = table[key[-1]]
    if key[-1] == "http_token":
        url = f"//{table.get('http', '127.0.0.1:8787')}"
    elif key[0] == "sources" and key[-1] != "proxy":
        url = table.get("base_url")
    with contextlib.suppress(ValueError):
        return isinstance(url, str) and is_loopback(urllib.parse.urlsplit(url).hostname or "")
    return False


def _exposed(key: Key, what: str, draft: _Draft) -> None:
    """Refuse a file that others can read, or only say so where the settings allow it."""
    security = draft.tree.get("security")
    allowed = security.get("allow_exposed_secrets") if isinstance(security, dict) else False
    if allowed is True or str(allowed).lower() == "true":
        draft.warnings.append(f"{_dotted(key)}: {what}; chmod 600 it")
    else:
        draft.problem(
            key, f"{what}; chmod 600 it, or set allow_exposed_secrets = true in [security]"
        )


def _path(given: str, key: Key, draft: _Draft) -> Path:
    """`given` from the variables is relative to the working directory, else to the file's."""
    base = Path() if key in draft.variables or not draft.file else draft.file.parent
    try:
        return (base / Path(given).expanduser()).absolute()
    except (OSError, RuntimeError):
        raise ConfigError("expected a path that exists") from None


def _prepare(path: Key, table: dict[str, Any], model: type[Table], draft: _Draft) -> None:
    """Give the table's values the types that pydantic checks, and look at them together."""
    for name, info in model.model_fields.items():
        key, value = (*path, name), table.get(name)
        if isinstance(value, str) and key in draft.variables:
            table[name] = value = _from_text(info.annotation, value)
        if name in ("data_dir", "ca_file") and isinstance(value, str) and value:
            with contextlib.suppress(ConfigError):
                table[name] = str(_path(value, key, draft))
        if any(
            isinstance(item, str) and _PLACEHOLDER.fullmatch(item)
            for item in (value if isinstance(value, list) else [value])
        ):
            draft.problem(key, f"is still the placeholder; expected {info.description}")
        elif name == "ca_file" and isinstance(value, str) and value:
            _look_at_certificates(Path(table[name]), key, draft)
    for name, message in model.conflicts(table).items():
        draft.problem((*path, name), message)


def _from_text(kind: Any, text: str) -> Any:
    kinds = _kinds(kind)
    with contextlib.suppress(ValueError, RecursionError):
        if kind in (int, float):
            return kind(text)
        if bool in kinds and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if any(get_origin(each) is tuple for each in kinds):
            listed = text.lstrip().startswith("[")
            return json.loads(text) if listed else [item.strip() for item in text.split(",")]
    return text


def _look_at_certificates(file: Path, key: Key, draft: _Draft) -> None:
    try:
        text, _ = _read(file, 8 << 20)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ConfigError as error:
        draft.problem(key, f"{error.what}; expected a file of certificates in PEM form")
    except (ssl.SSLError, ValueError, OSError):
        draft.problem(key, "holds no certificate; expected a file of certificates in PEM form")


def _refuse_private_hosts(draft: _Draft) -> None:
    """Look at the URLs that requests go to; where a name leads is seen when it is connected to."""
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
                    where = (
                        "[network]" if name == "alert_webhook" else "[network] or for the source"
                    )
                    draft.problem(
                        (*path, name),
                        "leads to a private network or a cloud's metadata service; expected a"
                        f" public host; if it is right, set allow_private_hosts = true in {where}",
                    )


def _validate(draft: _Draft) -> Settings | None:
    for name in draft.tree.keys() - {"sources", *_SINGLE}:
        draft.problem((name,), _unknown(name, ["sources", *_SINGLE]))
        del draft.tree[name]
    sources = draft.tree.get("sources")
    for name, table in sources.items() if isinstance(sources, dict) else ():
        if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name):
            fit = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:40] or "zoom_eu"
            wanted = "a name of at most 40 characters a-z 0-9 _ that starts with a letter"
            draft.problem(("sources", name), f"expected {wanted}; for example [sources.{fit}]")
        if isinstance(table, dict):
            if "name" in table:
                draft.problem(
                    ("sources", name, "name"), "unknown key; the table's name is the name"
                )
            table["name"] = name
    models = {path: model for path, _, model in draft.tables()}
    tree = {**draft.tree, "path": draft.file, "warnings": tuple(draft.warnings)}
    if isinstance(sources, dict):
        tree["sources"] = _sources(sources, models, draft)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        for found in error.errors(include_input=False, include_url=False):
            _explain(found, (), models, draft)
        return None


def _sources(
    sources: Mapping[str, Any], models: Mapping[Key, type[Table]], draft: _Draft
) -> dict[str, Source]:
    """Validate each source by its provider's model; leave out those with a problem."""
    read: dict[str, Source] = {}
    for name, table in sources.items():
        key = ("sources", name)
        if not isinstance(table, dict):
            draft.problem(key, _NO_TABLE)
        elif key not in models:
            draft.problem((*key, "provider"), _provider_problem(key, draft))
        else:
            streams = draft.streams(key)
            given = {each: value for each, value in table.items() if each not in streams}
            if "options" in given:
                draft.problem((*key, "options"), _unknown("options", _keys(models[key], streams)))
            given["options"] = {each: table[each] for each in streams if each in table}
            try:
                read[name] = draft.providers[table["provider"]].settings.model_validate(given)
            except ValidationError as error:
                for found in error.errors(include_input=False, include_url=False):
                    _explain(found, key, models, draft)
    return read


def _explain(
    error: ErrorDetails, at: Key, models: Mapping[Key, type[Table]], draft: _Draft
) -> None:
    """Turn one of pydantic's errors about the table `at` into a line of ours."""
    kind, inside = error["type"], tuple(str(part) for part in error["loc"])
    key = (*at, *(inside[1:] if inside[:1] == ("options",) else inside))
    if kind == "extra_forbidden":
        streams = draft.streams(at) if len(key) == 3 else ()
        draft.problem(key, _unknown(key[-1], _keys(models[key[:-1]], streams)))
        return
    if key[:-1] not in models and key[:-2] in models:
        kind, key = "item", key[:-1]
    if kind == "conflict" or key in draft.unread or (len(key) == 3 and key[2] == "name"):
        return  # has its line already
    info = models[key[:-1]].model_fields.get(key[-1]) if key[:-1] in models else None
    if info is None:
        draft.problem(key, _NO_TABLE)
        return
    message = error["msg"] if kind == "problem" else f"expected {info.description}"
    if kind == "missing":
        message = f"missing; {message}"
    elif kind.endswith("_type"):
        value: Any = draft.tree
        for part in key:
            value = value[part]
        message += f", not {_JSON_TYPES.get(type(value), 'that type')}"
    draft.problem(key, f"{message}; for example {draft.example(key, info)}")


def _provider_problem(key: Key, draft: _Draft) -> str:
    sources = draft.tree["sources"]
    given, names = sources[key[1]].get("provider"), [f'"{name}"' for name in draft.providers]
    wanted = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    if given is not None:
        return f"expected {wanted}{did_you_mean(given, draft.providers)}"
    message = f"missing; expected {wanted}; for example provider = {names[0]}"
    if all((*key, name) in draft.variables for name in sources[key[1]].keys() - {"name"}):
        others = sources.keys() - {key[1]}
        message += f"; this source is in the environment only{did_you_mean(key[1], others)}"
    return message


def _unknown(word: str, known: Collection[str]) -> str:
    return "unknown key" + (did_you_mean(word, known) or f"; known here: {', '.join(known)}")


def _keys(model: type[Table], streams: Collection[str] = ()) -> list[str]:
    """The keys of a table, the model's own ones before those that all sources have."""
    names = dict.fromkeys([*model.__annotations__, *model.model_fields])
    shown = [name for name in names if name in model.model_fields.keys() - {"name", "options"}]
    fields = {name: model.model_fields[name] for name in shown}
    files = [f"{name}_file" for name, info in fields.items() if _is_secret(info)]
    return [*fields, *sorted(streams), *files]


def _is_secret(info: FieldInfo) -> bool:
    return SecretStr in _kinds(info.annotation)


def _kinds(kind: Any) -> list[Any]:
    """The type, and those that it is a union or an annotation of."""
    inner = [] if get_origin(kind) is tuple else get_args(kind)
    return [kind, *(found for each in inner for found in _kinds(each))]


def _dotted(key: Key) -> str:
    bare = re.compile(r"[$\w-]{1,80}", re.ASCII)
    return ".".join(part if bare.fullmatch(part) else json.dumps(part[:80]) for part in key)


def _reach(own: Network | Source, general: Network) -> dict[str, Any]:
    """How the network is reached: what `own` says, else `general`; a proxy of "" is none."""
    reach = {
        name: getattr(general, name) if getattr(own, name) is None else getattr(own, name)
        for name in Network.model_fields
    }
    if reach["proxy"] is not None and not reach["proxy"].get_secret_value():
        reach["proxy"] = None
    return reach


def _inherit(own: Schedule, general: Schedule) -> Schedule:
    """`general` with what `own` sets; an own `every` or `cron` replaces either."""
    given = {name: getattr(own, name) for name in own.model_fields_set}
    trigger = {"every": None, "cron": None} if given.keys() & {"every", "cron"} else {}
    return general.model_copy(update={**trigger, **given})
