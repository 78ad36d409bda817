"""callflow.toml and the CALLFLOW_ variables → the tables of a draft. A variable wins."""

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from etl.config.draft import TABLES, Draft, keys_of
from etl.config.files import read_text
from etl.config.lines import Key, key_lines
from etl.config.values import did_you_mean
from etl.errors import ConfigError

_NOT_SETTINGS = re.compile("CALLFLOW_(CONFIG|PG_BIN|PG_USER|TRACEBACK|TEST_.*)")
# Kubernetes sets these in every pod of a namespace that has a service named callflow or callflow-x.
_KUBERNETES = re.compile(
    r"CALLFLOW_(?:(?!.*__)\w+_)??(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


def read_file(file: Path, draft: Draft) -> bool:
    """Fill the draft from callflow.toml; return whether others than its owner can read the file.

    Raises ConfigError where the file cannot be read or is not TOML.
    """
    try:
        text, exposed = read_text(file)
    except ConfigError as error:
        advice = "name another with --config or $CALLFLOW_CONFIG; `callflow init` writes a new one"
        raise ConfigError(error.what, where=str(file), advice=advice) from None
    slip = None
    try:
        draft.tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        slip = _syntax_error(str(error), text, file, draft)
    # Raised out here, without a context: the TOML error of newer Pythons holds the text.
    if slip:
        raise slip
    draft.lines = key_lines(text)
    return exposed


def _syntax_error(message: str, text: str, file: Path, draft: Draft) -> ConfigError:
    lines = text.split("\n")
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    number, column = (int(at[1]), int(at[2])) if at else (len(lines), len(lines[-1]) + 1)
    words = {"sources", *TABLES, *draft.providers, *draft.parts()}
    models = [*TABLES.values(), *(each.settings for each in draft.providers.values())]
    words.update(key for model in models for key in keys_of(model))
    # A word that is none of our keys may be a secret; masked, the line still shows the mistake.
    shape = re.sub(
        r"[^\s\[\]{}\"'=,#.]+",
        lambda word: word[0] if word[0] in words else "•" * len(word[0]),
        lines[number - 1].rstrip(),
    )
    said = message.removesuffix(at[0]) if at else message
    if _UNSEEN.match(lines[number - 1], column - 1):
        advice = "put a plain space, or nothing, in place of the character at the mark"
    else:
        advice = next(each for words, each in _SLIPS if re.search(words, said, re.IGNORECASE))
    return ConfigError(
        f"not valid TOML: {said}\n  {shape}\n  {' ' * (column - 1)}^",
        where=f"{file}, line {number}, column {column}",
        advice=advice,
    )


_UNSEEN = re.compile(r"[^\S \t\r\n]|[\u200b-\u200f\u2060\ufeff]")
"""A blank that is none to TOML, such as one that was copied from a web page."""

_SLIPS = (
    (r"\(at end of document\)|unclosed", "close what is open: text by its quotes, a list by ]"),
    ("overwrite|twice|duplicate|immutable", "write each key once per table, and each table once"),
    ("hex|escape|backslash", "write a backslash in text twice, or put the text in single quotes"),
    (
        "unterminated|illegal character",
        'end each text with a quote on its line, as in key = "value"',
    ),
    ("table declaration|array declaration", "write [name] alone on its line, with both brackets"),
    ("'='|newline", 'write each key on its own line, as in key = "value"'),
    (
        "invalid value",
        'put text in straight quotes, as in key = "value"; true and false in lower case',
    ),
    ("", 'write each key on its own line, with text in quotes, as in key = "value"'),
)
"""Words of a TOML error → what to do about it; the first that fit count."""


def read_variables(env: Mapping[str, str], draft: Draft) -> None:
    """Lay the CALLFLOW_ variables over the file's tables."""
    for variable in sorted(env):
        name = variable.upper().removeprefix("CALLFLOW_")
        if name == variable.upper() or _is_foreign(variable):
            continue
        key = _variable_key(name.lower(), draft.parts())
        if key is None or not variable.isascii():
            draft.problem((f"${variable}",), _unknown_variable(variable.upper(), name))
            continue
        if key in draft.variables:
            draft.problem(key, f"given twice, also as {draft.variable(key)}")
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


def _is_foreign(variable: str) -> bool:
    """Return whether the variable is no setting although its name starts like one."""
    return bool(_NOT_SETTINGS.fullmatch(variable) or _KUBERNETES.fullmatch(variable))


def _unknown_variable(variable: str, name: str) -> str:
    known = ["CONFIG", "PG_BIN"]
    known += [f"{t}__{k}".upper() for t, m in TABLES.items() for k in keys_of(m)]
    meant = f"SOURCES__{name.partition('__')[2]}"  # as of CALLFLOW_SOURCE__ZOOM_EU__TIMEOUT
    known += [meant] if meant.count("__") > 1 and f"CALLFLOW_{meant}" != variable else []
    wanted = "unknown variable; expected CALLFLOW_TABLE__KEY, or CALLFLOW_SOURCES__NAME__KEY"
    return wanted + did_you_mean(name, known, "CALLFLOW_")


def _variable_key(name: str, parts: Collection[str]) -> Key | None:
    """Return the key that a variable sets; None where its name has not the shape of one.

    A source's name may hold two underscores in a row, so it is found between the ends.
    """
    table, _, rest = name.partition("__")
    if table != "sources":
        return (table, rest) if table in TABLES and rest else None
    source, _, setting = rest.rpartition("__")
    if not source or not setting or setting in parts:
        return None
    name, _, part = source.rpartition("__")
    if name and part in parts:
        return ("sources", name, part, setting)
    return ("sources", source, setting)
