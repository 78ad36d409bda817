"""The options that several commands share, and the settings that they lead to."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.commands.signals import importing
from etl.sandbox import PORT_OF

if TYPE_CHECKING:
    from etl.config.redact import Redactor
    from etl.config.settings import Settings

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
DEFAULT_PORTS = tuple(PORT_OF.values())
if TYPE_CHECKING:
    _Ports = tuple[int, ...]
else:
    _Ports = tuple[(int,) * len(PORT_OF)]  # typer reads as many values as the type has members
Ports = Annotated[
    _Ports,
    typer.Option(
        metavar=" ".join(PORT_OF).upper(),
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
    """The redactor for the message of a command that fails, once `load` knows the secrets."""

    redact: "Redactor | None" = None


def load(
    context: typer.Context, path: Path | None, *, sources: bool = False
) -> "tuple[Settings, Redactor]":
    """Read the settings and make the command's only redactor, also for its last message.

    Raises ConfigError; if there must be `sources`, also when there is none.
    """
    with importing():
        from etl.config import load as config
        from etl.config.settings import redactor
    settings = config.load(path, os.environ)
    redact = redactor(settings)
    if isinstance(context.obj, Secrets):
        context.obj.redact = redact
    if sources:
        config.require_sources(settings)
    return settings, redact
