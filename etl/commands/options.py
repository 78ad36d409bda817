"""The options that several commands share, and the settings that they lead to."""

import os
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from etl.config import load as config
from etl.config.redact import Redactor
from etl.config.settings import Settings, redactor
from etl.config.values import Duration
from etl.errors import ConfigError
from etl.providers import PROVIDERS
from etl.sandbox import FIRST_PORT
from etl.status.versions import WORDS, Version
from etl.warehouse.model import moment

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration file. Default: $CALLFLOW_CONFIG, else ./callflow.toml.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE[.STREAM]",
        help="Sources or streams. Default: all.",
        show_default=False,
    ),
]
DEFAULT_PORTS = tuple(range(FIRST_PORT, FIRST_PORT + len(PROVIDERS)))
if TYPE_CHECKING:
    _Ports = tuple[int, ...]
else:
    _Ports = tuple[(int,) * len(PROVIDERS)]  # typer reads as many values as the type has members
Ports = Annotated[
    _Ports,
    typer.Option(
        metavar=" ".join(provider.name.upper() for provider in PROVIDERS),
        help="The ports, 0 to 65535; 0: any free one.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
WithMigrate = Annotated[
    bool, typer.Option("--migrate", help="Migrate the schema first if it is behind.")
]
At = Annotated[
    str | None,
    typer.Option(
        metavar="MOMENT",
        help='Answer as of then, such as "2026-11-17 14:05+01"; without an offset it is UTC.',
    ),
]
FlowName = Annotated[
    str,
    typer.Argument(
        metavar="FLOW", help="Its id, its key (source/id), its name, or a part of its name."
    ),
]
OfSource = Annotated[
    str | None,
    typer.Option("--source", metavar="SOURCE", help="Look for the flow in this source only."),
]


@dataclass(slots=True)
class Secrets:
    """The redactor for the message of a command that fails; it learns the secrets from `load`."""

    redact: Redactor = field(default_factory=Redactor)


def load(context: typer.Context, path: Path | None) -> tuple[Settings, Redactor]:
    """Read the settings and make the command's only redactor, also for its last message.

    Raises ConfigError.
    """
    settings = config.load(path, os.environ)
    redact = redactor(settings)
    if isinstance(context.obj, Secrets):
        context.obj.redact = redact
    return settings, redact


def as_moment(given: str | None, option: str) -> datetime | None:
    """Return the moment that the value of `option` means; None if the option was not given.

    Raises ConfigError, which says what is expected.
    """
    if given is None:
        return None
    try:
        return moment.parse(given)
    except ValueError as error:
        raise _unreadable(given, option, str(error)) from None


def as_time(given: str | None, option: str) -> datetime | timedelta | None:
    """Return what the value of `option` means: a moment, or how long ago; None if not given.

    Raises ConfigError, which says what is expected.
    """
    if given is None:
        return None
    try:
        return TypeAdapter[timedelta](Duration).validate_python(given)
    except ValidationError:
        pass
    try:
        return moment.parse(given)
    except ValueError as error:
        raise _unreadable(given, option, f"{error}, or how long ago: 12h, 7d") from None


def as_time_or_version(given: str | None, option: str) -> datetime | timedelta | Version | None:
    """Return what the value of `option` means, as `as_time`, or a version of a flow.

    That is a number, "live" or "newest". Raises ConfigError, which says what is expected.
    """
    for word in WORDS:
        if given == word:
            return word
    if given is not None and re.fullmatch("[0-9]{1,9}", given):
        return int(given)
    try:
        return as_time(given, option)
    except ConfigError as error:
        raise _unreadable(
            given or "", option, f"{error.advice}, or a version: 3, live, newest"
        ) from None


def _unreadable(given: str, option: str, expected: str) -> ConfigError:
    return ConfigError(f"{given[:80]!r} cannot be read", where=option, advice=expected)
