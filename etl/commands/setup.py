"""The questions of `callflow init`; they follow from how providers are declared."""

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from etl.commands.options import program_for
from etl.commands.output import print_lines, stderr
from etl.commands.signals import importing
from etl.config import load as config
from etl.config.check import A_NAME, from_text, is_name, refusal
from etl.config.draft import is_secret
from etl.config.example import Entry, write_answers
from etl.config.files import require_new, require_writable
from etl.config.redact import harmless
from etl.config.settings import Source, Table, Warehouse, redactor
from etl.config.values import did_you_mean
from etl.errors import ConfigError, StoppedError
from etl.providers import PROVIDERS
from etl.providers.declare import Provider

_NOTHING = "nothing was written"


@dataclass(frozen=True, slots=True)
class Person:
    """Who answers: `say` shows lines, `ask` a prompt and returns the answer; `hidden`: unseen."""

    say: Callable[[str], None]
    ask: Callable[[str], str]
    hidden: Callable[[str], str]


def run(path: Path) -> int:
    """Ask, write `path` and its secret files, check the source; return the exit code."""
    try:
        entries = interview(Person(_say, _ask, _hidden), path, PROVIDERS)
    except KeyboardInterrupt:
        _say("")
        raise StoppedError(f"stopped by a signal; {_NOTHING}") from None
    except EOFError:
        _say("")
        again = "run it again, or with --no-input for a file to fill in"
        raise ConfigError(f"no more input; {_NOTHING}", where="init", advice=again) from None
    write_answers(path, entries)
    name = entries[-1].stem
    sys.stdout.write(f"Wrote {harmless(str(path))}, and its secrets to files beside it.\n")
    sys.stdout.flush()
    settings = config.load(path, os.environ)
    with importing():
        from etl.commands import check
    code = check.run(settings, redactor(settings), [name])
    if code:
        sys.stdout.write(f"Correct {harmless(str(path))}, then: {program_for(path)} check\n")
    else:
        sys.stdout.write(f"Next: {program_for(path)} sync\n")
    return code


def interview(person: Person, path: Path, providers: tuple[Provider, ...]) -> list[Entry]:
    """Ask for one source and the warehouse; return the tables of callflow.toml, the source last.

    Writes nothing. Raises what `person` raises, and ConfigError if no file can be written there, or
    if the file for the warehouse's URL is there already.
    """
    warehouse = f"{path.stem}_warehouse"
    url_file = path.parent / Entry("warehouse", warehouse, {}, {}).file("url")
    require_writable(path.parent, whose=path)
    if os.path.lexists(url_file.parent):
        require_writable(url_file.parent, whose=url_file)
    require_new(url_file)
    person.say(
        f"To make {path}, answer a few questions. Nothing is written before the last answer;"
        " press Ctrl-C to stop.\n"
    )
    provider = _provider(person, providers)
    name = _name(person, path, provider)
    person.say(f"\n{provider.setup}\nRights: {provider.rights.replace('`', '')}.\n")
    given = _credentials(person, provider)
    person.say("\nWhere the data goes: a Postgres, or the embedded one, which needs no setup.")
    url = _value(person, Warehouse, "url", "embedded")
    fields = provider.settings.model_fields
    return [
        Entry("warehouse", warehouse, {}, {"url": url}) if url else
        Entry("warehouse", warehouse, {}, {}, "without url: the embedded Postgres"),
        Entry(
            f"sources.{name}",
            name,
            {"provider": provider.name}
            | {key: value for key, value in given.items() if not is_secret(fields[key])},
            {key: value for key, value in given.items() if is_secret(fields[key])},
        ),
    ]  # fmt: skip


def _provider(person: Person, providers: tuple[Provider, ...]) -> Provider:
    names = {each.name: each for each in providers}
    for number, each in enumerate(providers, 1):
        person.say(f"  {number}  {each.name:<10} {each.title}")
    while True:
        answer = person.ask(f"Provider, 1 to {len(names)}").strip().lower()
        if answer.isdecimal() and 0 < int(answer[:4]) <= len(names):
            return providers[int(answer) - 1]
        if answer in names:
            return names[answer]
        person.say(f"  expected one of {', '.join(names)}{did_you_mean(answer, names)}")


def _name(person: Person, path: Path, provider: Provider) -> str:
    """Ask what the source is called, so that its secret files are new."""
    usual = f"{provider.name}_main"
    while True:
        name = person.ask(f"Name of the source [{usual}]").strip() or usual
        entry = Entry(f"sources.{name}", name, {}, {})
        taken = [
            entry.file(key)
            for key, info in provider.settings.model_fields.items()
            if is_secret(info) and os.path.lexists(path.parent / entry.file(key))
        ]
        if not is_name(name):
            person.say(f"  expected {A_NAME}")
        elif taken:
            person.say(f"  {taken[0]} is there already; choose another name")
        else:
            return name


def _credentials(person: Person, provider: Provider) -> dict[str, Any]:
    """Ask for the keys that a source of the provider must have: the required ones first.

    Then for its other keys without a default, as long as the model says that one is missing.
    """
    model = provider.settings
    own = {key: model.model_fields[key] for key in model.model_fields if key not in _OF_ALL}
    given = {k: _value(person, model, k) for k, info in own.items() if info.is_required()}
    while missing := list(model.conflicts(given).values()):
        person.say(f"  {missing[0].removeprefix('missing; ')}")
        for key, info in own.items():
            if not info.is_required() and info.default is None and model.conflicts(given):
                value = _value(person, model, key, "none")
                given |= {key: value} if value else {}
    return given


_OF_ALL = frozenset(Source.model_fields)


def _value(person: Person, model: type[Table], key: str, without: str = "") -> Any:
    """Ask for a key until the model takes it; with `without`, Enter leaves it out (None).

    A list is given with commas.
    """
    info = model.model_fields[key]
    hidden = is_secret(info)
    said = f"{key}: {info.description}{' (not shown)' if hidden else ''}"
    prompt = said + (f" [{without}]" if without else "")
    while True:
        answer = (person.hidden if hidden else person.ask)(prompt).strip()
        if not answer and without:
            return None
        value = from_text(info.annotation, answer)
        if not (wrong := refusal(model, key, value)):
            return value
        person.say(f"  {wrong}")


def _say(text: str) -> None:
    for line in text.split("\n"):
        print_lines(stderr(), escape(harmless(line)))


def _ask(prompt: str) -> str:
    sys.stderr.write(f"{prompt}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _hidden(prompt: str) -> str:
    try:
        return getpass.getpass(f"{prompt}: ", sys.stderr)
    except UnicodeDecodeError:  # as of a terminal in another encoding; no secret takes this answer
        _say("")
        return "\ufffd"
