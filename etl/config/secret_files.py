"""Secrets from files (`client_secret_file = "…"`), and files of secrets that others can read."""

import contextlib
import urllib.parse
from pathlib import Path
from typing import Any

from etl.config.draft import PLACEHOLDER, Draft, dotted, is_secret
from etl.config.files import read_text
from etl.config.hosts import is_loopback
from etl.config.lines import Key
from etl.errors import ConfigError

_MOUNTED = (Path("/run/secrets"), Path("/var/run/secrets"), Path("/run/credentials"))


def read_secrets(draft: Draft) -> list[Key]:
    """Replace each NAME_file by NAME. Return the secrets that callflow.toml itself holds."""
    inline: list[Key] = []
    for path, table, model in draft.tables():
        for name in (n for n, info in model.model_fields.items() if is_secret(info)):
            key, file_key = (*path, name), (*path, name + "_file")
            if name in table and key not in draft.variables and _holds_secret(name, table[name]):
                inline.append(key)
            if name + "_file" not in table:
                continue
            given = table.pop(name + "_file")
            if name in table:
                draft.problem(file_key, f"given together with {name}; expected one of the two")
                continue
            try:
                table[name] = _secret(given, file_key, draft)
                draft.from_file.add(key)
            except ConfigError as error:
                draft.problem(file_key, f"{error.what}; expected a file that holds only the secret")
                draft.unread.add(key)
                table[name] = ""
    return inline


def _holds_secret(name: str, value: Any) -> bool:
    """Return whether a value is secret: of the address of a proxy or a database, its password."""
    return name not in ("proxy", "url") or "@" in str(value)


def _secret(given: Any, key: Key, draft: Draft) -> str:
    if not isinstance(given, str) or not given:
        raise ConfigError("expected a path, as text")
    if PLACEHOLDER.fullmatch(given):
        raise ConfigError("is still the placeholder")
    path = draft.path(given, key)
    text, exposed = read_text(path, 1 << 16)
    if not text.strip():
        raise ConfigError("the file is empty")
    # Docker and Kubernetes mount secrets as 0444, in a container that has no other user. systemd
    # gives a service its credentials by an access list, which the mode does not show.
    if exposed and not any(path.is_relative_to(mounted) for mounted in _MOUNTED):
        _refuse(key, "others can read that file", draft)
    return text.rstrip("\r\n")


def refuse_exposed(inline: list[Key], draft: Draft) -> None:
    """Refuse a callflow.toml that holds the secrets `inline` and that others can read.

    Of secrets that are of use on this machine only, such as an emulator's, it only warns.
    """
    away = [key for key in inline if not _stays_here(key, draft)]
    if away:
        _refuse(away[0], "others can read this file, which holds secrets", draft)
    elif inline:
        draft.warnings.append(f"{draft.file}: holds secrets and others can read it")


def _stays_here(key: Key, draft: Draft) -> bool:
    """Return whether a secret of callflow.toml is only ever sent to this machine itself."""
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


def _refuse(key: Key, what: str, draft: Draft) -> None:
    """Refuse a file that others can read, or only warn where the settings allow it."""
    security = draft.tree.get("security")
    allowed = security.get("allow_exposed_secrets") if isinstance(security, dict) else False
    if allowed is True or str(allowed).lower() == "true":
        draft.warnings.append(f"{dotted(key)}: {what}; chmod 600 it")
    else:
        draft.problem(
            key, f"{what}; chmod 600 it, or set allow_exposed_secrets = true in [security]"
        )
