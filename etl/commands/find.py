"""Find the flow that a person means on the command line."""

import typer
from rich.markup import escape
from sqlalchemy import Connection

from etl.commands import flow_lines
from etl.commands.output import print_lines, stderr
from etl.errors import ConfigError
from etl.status import flows
from etl.status.drawing import short
from etl.status.flows import Flow
from etl.sync.selection import perhaps

_MOST = 30
"""How many flows are listed that may be meant."""


def one_flow(connection: Connection, wanted: str, source: str | None, where: str) -> Flow:
    """Return the flow that `wanted` means (`flows.find`).

    Lists the flows on stderr and exits with 2 if there are several. Raises ConfigError if there is
    none, or no such source.
    """
    if source is not None:
        require_source(connection, source, where)
    found = flows.find(connection, wanted, source)
    if len(found) == 1:
        return found[0]
    if not found:
        within = f" in {source}" if source else ""
        raise ConfigError(
            f"no flow{within} has the id {short(wanted, 80)!r}, or has it in its name",
            where=where,
            advice='list them: callflow sql "SELECT flow_key, name FROM callflow.flows"',
        )
    messages = stderr()
    what = escape(f"{where}: {short(wanted, 80)!r} can mean {len(found):,} flows")
    print_lines(messages, f"[red]callflow:[/red] {what} → give one of these keys, or --source")
    for flow in found[:_MOST]:
        print_lines(messages, flow_lines.candidate_line(flow))
    if len(found) > _MOST:
        messages.print(f"  and {len(found) - _MOST:,} more")
    raise typer.Exit(2)


def require_source(connection: Connection, source: str, where: str) -> None:
    """Raise ConfigError if no source of that name was ever synced."""
    known = flows.sources(connection)
    if source not in known:
        raise ConfigError(
            f"the warehouse has nothing of a source {short(source, 80)!r}",
            where=where,
            advice=perhaps([source], known) if known else "run `callflow sync` first",
        )
