"""How the command line is read and its help is laid out; what the commands are is in `cli`."""

import difflib
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from etl.commands.examples import EXAMPLES
from etl.commands.options import shared_options
from etl.errors import ConfigError

_FLAGS = ("-v", "--verbose", "-q", "--quiet")
_WITH_VALUE = ("-c", "--config", "--log-level")
_UNDECODED = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes of the command line that are not text (PEP 383)."""


class Program(TyperGroup):
    """callflow: its commands, and the options that may stand before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read shared options before the command as if they came after it."""
        return super().parse_args(ctx, _behind(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; the error about an unknown one may suggest an option: --version."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            known = {*self.commands, *(o for p in self.get_params(ctx) for o in p.opts)}
            close = [*difflib.get_close_matches(name, sorted(self.commands), 1)]
            close += [option for option in (f"--{name}",) if option in known]
            advice = f"did you mean {close[0]}?" if close else "`callflow help` lists them"
            what = f"there is no command {name[:80]!r}"
            raise ConfigError(what, where="command line", advice=advice)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then each command with the whole first sentence about it."""
        _write(formatter, "Options", _options(self, ctx))
        _write(formatter, "Commands", [(name, short(each)) for name, each in self.commands.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        _write(formatter, "Examples", EXAMPLES[""], 46)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the commands and options that start like that."""
        return _bare(super().shell_complete(ctx, incomplete))


class Command(TyperCommand):
    """A command; its help ends with examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name: [OPTIONS] FLOW [SOURCE ...]."""
        pieces = [self.options_metavar or ""]
        for each in self.get_params(ctx):
            if each.param_type_name == "argument":
                name = _metavar(each) + (" ..." if each.nargs != 1 else "")
                pieces.append(name if each.required else f"[{name}]")
        return pieces

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words. Raises ConfigError for one that is not UTF-8, unless it is a path."""
        left = super().parse_args(ctx, args)
        for each in self.params:
            given = ctx.params.get(each.name)
            for value in given if isinstance(given, list) else [given]:
                if isinstance(value, str) and _UNDECODED.search(value):
                    raise ConfigError(
                        f"{_named(each)}: what was given is not UTF-8",
                        where=self.name or "command line",
                        advice="set the encoding of this terminal to UTF-8 and type it again",
                    )
        return left

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options."""
        arguments = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
        _write(formatter, "Arguments", [(_metavar(each), _said(each)) for each in arguments])
        _write(formatter, "Options", _options(self, ctx))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        _write(formatter, "Examples", EXAMPLES[self.name or ""], 46)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the options that start like that."""
        return _bare(super().shell_complete(ctx, incomplete))


class Reading(Command):
    """A command that reads the configuration; it takes the options that all of these share."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.extend(shared_options())


def short(command: Any) -> str:
    """Return the first sentence about a command."""
    first = " ".join((command.help or "").partition("\n\n")[0].split())
    sentence, stop, _ = first.partition(". ")
    return sentence + ("." if stop else "")


def usage_error(error: TyperException) -> ConfigError:
    """Return typer's error about the words of a command line as ours."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "callflow"
    parameter: Any = getattr(error, "param", None)
    advice = f"`{command} --help` says more"
    if (option := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        what = f"there is no option {option}"
        close: list[str] = sorted(getattr(error, "possibilities", None) or [])
        advice = f"did you mean {close[0]}?" if close else advice
    elif parameter is not None:
        name = _named(parameter)
        given = error.message and not error.message.startswith("Missing")
        what = f"{name}: expected {_wanted(parameter)}" if given else f"{name} is missing"
    else:
        said = error.format_message().rstrip(".")
        what = said[:1].lower() + said[1:]
    where = command.removeprefix("callflow").strip() or "command line"
    return ConfigError(what, where=where, advice=advice)


def _wanted(parameter: Any) -> str:
    """Return in words which values an argument or option takes."""
    kind = parameter.type_descriptor
    if kind.choices:
        values = [str(getattr(each, "value", each)) for each in kind.choices]
        return f"{', '.join(values[:-1])} or {values[-1]}"
    if parameter.min is not None and parameter.max is not None:
        return f"a whole number from {parameter.min:,} to {parameter.max:,}"
    if kind.annotation is int:
        return "a whole number"
    said = str(parameter.help or _metavar(parameter)).rstrip(".")
    return said[:1].lower() + said[1:]


def commands(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of all commands; typer takes those that start as was typed."""
    program: Any = context.find_root().command
    return list(program.commands)


def print_help(context: typer.Context, name: str | None) -> None:
    """Print the help of the command `name`, of the program without one.

    Raises ConfigError where there is no such command.
    """
    parent = context.parent
    assert parent is not None
    if name is None:
        typer.echo(parent.get_help())
        return
    program: Any = parent.command
    _, command, _ = program.resolve_command(parent, [name])
    with command.make_context(name, [], parent=parent, resilient_parsing=True) as inner:
        typer.echo(inner.get_help())


def _behind(args: list[str]) -> list[str]:
    """Move the shared options that stand before the command behind its name."""
    moved, rest = list[str](), list(args)
    while rest:
        word = rest[0]
        joined = word.partition("=")[0] in _WITH_VALUE and "=" in word
        if word in _FLAGS or joined or (word[:2] == "-c" and word != "-c"):
            moved.append(rest.pop(0))
        elif word in _WITH_VALUE:
            moved += rest[:2]
            del rest[:2]
        else:
            break
    named = bool(rest) and not rest[0].startswith("-")
    return [rest[0], *moved, *rest[1:]] if named else args


def _options(command: Any, ctx: Any) -> list[tuple[str, str]]:
    found = []
    for each in command.get_params(ctx):
        if each.param_type_name == "option" and not each.hidden:
            names = ", ".join(sorted(each.opts, key=len))
            value = "" if each.is_flag else f" {_metavar(each)}"
            found.append((names + value, _said(each)))
    return found


def _named(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    return str(parameter.opts[0]) if option else _metavar(parameter)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _said(parameter: Any) -> str:
    """Return what the help says of an argument or option: what for, its limits, its default."""
    said, least, most = parameter.help or "", parameter.min, parameter.max
    if least is not None and most is not None:
        said += f" From {least:,} to {most:,}."
    default = parameter.default
    if default not in (None, False, ()) and parameter.show_default is not False:
        values = default if isinstance(default, tuple | list) else [default]
        said += f" Default: {' '.join(str(getattr(each, 'value', each)) for each in values)}."
    return said


def _write(formatter: Any, title: str, rows: Any, widest: int = 30) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows, widest)


def _bare(items: Any) -> Any:
    """Return completions without their help: typer would import half of rich to write it."""
    for each in items:
        each.help = None
    return items
