"""`callflow show`: what a flow is, what reaches it and what is wrong with it; its inside, drawn."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from etl.commands import drawing, flow_lines
from etl.commands.access import reading
from etl.commands.find import one_flow
from etl.commands.moments import as_moment
from etl.commands.output import note, print_lines, stdout, zone
from etl.commands.rows import write_objects
from etl.config.files import write_all_new
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import ConfigError
from etl.status import flows, graphviz, picture
from etl.status.drawing import Drawing, short
from etl.status.flows import Content
from etl.status.masking import masked


def run(
    settings: Settings,
    redact: Redactor,
    name: str,
    source: str | None,
    at: str | None,
    *,
    svg: Path | None,
    html: Path | None,
    mask: bool,
    as_json: bool,
) -> None:
    """Print the flow `name` as it was `at` a moment, and write the pictures that are asked for."""
    moment = as_moment(at, "--at")
    with (
        reading(settings, redact) as (engine, _),
        flows.snapshot(engine, redact, "show") as connection,
    ):
        flow = one_flow(connection, name, source, "show")
        now = flows.now(connection)
        content = flows.content(connection, flow, moment)
    if content is None:
        raise ConfigError(
            f"callflow did not know {short(flow.name, 80) or flow.key} at that moment yet",
            where="show",
            advice="give a later --at, or none",
        )
    if mask:
        content = masked(content)
    drawn = flows.drawing(content)
    written = _write(drawn, svg, html)
    if as_json:
        write_objects([flow_lines.flow_json(content)])
    else:
        results = stdout()
        times = zone(results)
        for line in (
            *flow_lines.header(content, times),
            *flow_lines.parts(content, min(moment or now, now), times),
        ):
            print_lines(results, line, indent=14)
        _print_inside(content, drawn)
    sys.stdout.flush()
    for each in written:
        note(f"wrote {each}")


def _write(drawn: Drawing, svg: Path | None, html: Path | None) -> list[Path]:
    """Write the pictures that are asked for, all or none; return their paths."""
    wanted = [each for each in (svg, html) if each is not None]
    if not wanted:
        return []
    if not drawn.steps:
        raise ConfigError(
            "the warehouse holds no steps of this flow, so there is nothing to draw",
            where="show",
            advice="leave out --svg and --html",
        )
    made = graphviz.svg(drawn)
    given = ((svg, made), (html, picture.html(drawn, made) if html else ""))
    write_all_new([(path, text.encode()) for path, text in given if path is not None])
    return wanted


def _print_inside(content: Content, drawn: Drawing) -> None:
    """Draw the steps; entry points and findings about the whole flow are printed already."""
    results = stdout()
    if not content.steps:
        if not content.findings:
            results.print("\nThe warehouse holds no steps of this flow.")
        return
    bare = replace(drawn, title="", addresses=(), findings=())
    width = shutil.get_terminal_size().columns
    results.print("\n[bold]Steps[/bold]")
    results.print(Text(drawing.terminal(bare, width).strip("\n")), soft_wrap=True)
