"""The options that several commands share, and the settings that they lead to."""

import logging
import os
import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etl.commands import names
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
        readable=False,
        help="The configuration file. Default: $CALLFLOW_CONFIG, else ./callflow.toml.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE[.STREAM]",
        help="Sources or streams. Default: all.",
        show_default=False,
        autocompletion=names.of_streams,
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
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="Look for the flow in this source only.",
        autocompletion=names.of_sources,
    ),
]


COMPLETION_VARIABLE = "_CALLFLOW_COMPLETE"
"""The variable by which a shell asks for completions; typer makes its name of the program's."""


class Shell(StrEnum):
    """The shells for which there is completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class Level(StrEnum):
    """What is logged: this and what is graver."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(slots=True)
class Shared:
    """What the parts of one command line share.

    `redact` is the redactor for the message of a command that fails, once `load` knows the secrets.
    `verbose`, `quiet` and `log_level` are the options of these names.
    """

    redact: "Redactor | None" = None
    verbose: bool = False
    quiet: bool = False
    log_level: Level | None = None

    def logs_from(self) -> int | None:
        """Return the level of `logging` that was asked for; None: none was.

        Raises ConfigError where two options contradict each other.
        """
        from etl.errors import ConfigError

        given = {
            "--verbose": Level.DEBUG if self.verbose else None,
            "--quiet": Level.WARNING if self.quiet else None,
            "--log-level": self.log_level,
        }
        asked = [name for name, level in given.items() if level]
        if len(asked) > 1:
            both = f"{' and '.join(asked)} exclude each other"
            raise ConfigError(both, where="command line", advice="give one of them")
        return getattr(logging, str(given[asked[0]]).upper()) if asked else None


def _keep(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Keep an option that all commands share where `load` finds it."""
    shared = context.find_root().obj
    if value and isinstance(shared, Shared):
        setattr(shared, str(parameter.name), value)
    return value


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        callback=_keep,
        expose_value=False,
        help="Also print a line for each request, on stderr.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_keep,
        expose_value=False,
        help="Print results and errors only: no notes, no progress.",
    ),
]
LogLevel = Annotated[
    Level | None,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        callback=_keep,
        expose_value=False,
        help="debug (as --verbose), info, warning (as --quiet) or error; info for the daemon if"
        " not given.",
    ),
]


@cache
def shared_options() -> list[Any]:
    """Return the options of all commands that read the configuration, as click's parameters."""
    program = typer.Typer(add_completion=False)

    @program.command()
    def _command(
        verbose: Verbose = False, quiet: Quiet = False, log_level: LogLevel = None
    ) -> None: ...

    return list(typer.main.get_command(program).params)


def program_for(path: Path) -> str:
    """Return how callflow is called so that it reads the configuration `path`."""
    if path == Path("callflow.toml"):
        return "callflow"
    return f"callflow -c {shlex.quote(str(path))}"


def load(
    context: typer.Context, path: Path | None, *, sources: bool = False, logs: bool = True
) -> "tuple[Settings, Redactor]":
    """Read the settings and make the command's only redactor, also for its last message.

    With `logs`, what --verbose, --quiet and --log-level ask for starts here; the daemon does it
    itself. Raises ConfigError; if there must be `sources`, also when there is none.
    """
    shared = context.obj if isinstance(context.obj, Shared) else Shared()
    level = shared.logs_from()
    with importing():
        from etl.config import load as config
        from etl.config.settings import redactor

        settings = config.load(path, os.environ)  # imports more where it reads a database's URL
    shared.redact = redact = redactor(settings)
    if sources:
        config.require_sources(settings)
    if logs and level is not None:
        from etl.commands.output import log_to_stderr

        log_to_stderr(level, redact)
    return settings, redact
