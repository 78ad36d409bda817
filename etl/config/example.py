"""New configurations: the commented callflow.toml, and one of answers, with its secret files."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from etl.config.files import require_new, write_all_new, write_new

ADVICE = "edit it, or name another file"
"""What to do about a callflow.toml that is there already."""
SECRETS = "secrets"
"""The directory beside a new callflow.toml that holds its secrets."""

_HEAD = """\
#:schema callflow.schema.json
# `callflow init --schema >callflow.schema.json` makes the file of the line above; with it an editor
# completes and checks this one. `callflow init --no-input all.toml` writes one that shows all keys.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of a new callflow.toml: its header, its keys, and those that are secrets.

    A secret goes to a file whose name starts with `stem`; the table has that file's name. `note` is
    a comment below the header.
    """

    header: str
    stem: str
    values: Mapping[str, str | list[str]]
    secrets: Mapping[str, str]
    note: str = ""

    def file(self, key: str) -> str:
        """Return the file of a secret, as callflow.toml names it."""
        return f"{SECRETS}/{self.stem}_{key}"


def write_example(path: Path) -> None:
    """Write the commented example to the new file `path`, readable by its owner only.

    Raises ConfigError when the file exists already, or cannot be written.
    """
    text = Path(__file__).with_name("callflow.example.toml").read_bytes()
    write_new(path, text, 0o600, advice=ADVICE)


def write_answers(path: Path, entries: Iterable[Entry]) -> None:
    """Write the new file `path` and its secret files, all of them or none, for the owner only.

    Raises ConfigError when one of them exists already, or cannot be written.
    """
    text, files = _HEAD, list[tuple[Path, bytes]]()
    for entry in entries:
        lines = [f"\n[{entry.header}]", *([f"# {entry.note}"] if entry.note else [])]
        lines += [f"{key} = {_toml(value)}" for key, value in entry.values.items()]
        lines += [f"{key}_file = {_toml(entry.file(key))}" for key in entry.secrets]
        text += "\n".join(lines) + "\n"
        for key, secret in entry.secrets.items():
            files.append((path.parent / entry.file(key), f"{secret}\n".encode()))
    directory = path.parent / SECRETS
    made = bool(files) and not directory.exists()
    require_new(path, advice=ADVICE)
    try:
        if made:
            with contextlib.suppress(OSError):  # the first file will say why
                directory.mkdir(0o700)
        write_all_new([*files, (path, text.encode())], 0o600)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise


def _toml(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)
