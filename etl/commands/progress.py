"""Run streams for a person who watches."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from etl.commands import grid, lines
from etl.commands.output import print_lines
from etl.load.runs import Run
from etl.sync.job import Job, Reached
from etl.sync.run import run_stream
from etl.sync.selection import Unit, name_of, run_all

_ORDINALS = {2: "2nd", 3: "3rd"}


class ProgressBars:
    """Shows what each running stream does and how far it is: bars on a terminal, else nothing."""

    def __init__(self, console: Console, names: Sequence[str], *, quiet: bool = False) -> None:
        longest = max(map(len, names), default=0)
        self._progress = Progress(
            TextColumn(
                "{task.description}", markup=False,
                table_column=Column(min_width=min(longest, 30), no_wrap=True, overflow="ellipsis"),
            ),
            TextColumn(
                "{task.fields[phase]}",
                table_column=Column(min_width=len("2nd reading"), no_wrap=True),
            ),
            BarColumn(bar_width=None, table_column=Column(min_width=10, ratio=1)),
            TextColumn(
                "{task.fields[count]}", justify="right", table_column=Column(no_wrap=True)
            ),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=quiet or not console.is_terminal or console.is_dumb_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def start(self, name: str) -> None:
        """Show a bar for `name`, which waits for its first answer."""
        self._tasks[name] = self._progress.add_task(name, total=None, phase="starting", count="")

    def reached(self, name: str, now: Reached) -> None:
        """Show how far `name` is."""
        self._progress.update(
            self._tasks[name],
            completed=now.records,
            total=now.total,
            phase=phase(now),
            count=f"{now.records:,}" if now.total is None else f"{now.records:,}/{now.total:,}",
        )

    def end(self, name: str) -> None:
        """Take the bar of `name` away."""
        self._progress.remove_task(self._tasks.pop(name))


def phase(now: Reached) -> str:
    """Return in words what a run does; which reading it is, if it reads the list again."""
    if now.phase != "reading" or now.scan == 1:
        return now.phase
    return f"{_ORDINALS.get(now.scan, f'{now.scan}th')} reading"


def run_jobs(
    jobs: Sequence[Job], results: Console, messages: Console, *, quiet: bool = False
) -> Generator[Run]:
    """Run `jobs` and yield each run as it ends, with progress bars on a terminal.

    They are drawn on `results` if that is a terminal, so that what is printed there appears above
    them, else on `messages`. Accounts run side by side, the streams of one in turn. To close it
    waits for those that run. Raises what `run_stream` raises.
    """
    by_name = {job.name: job for job in jobs}
    units = [(job.settings, job.stream) for job in jobs]
    console = results if results.is_terminal else messages
    bars = ProgressBars(console, list(by_name), quiet=quiet)
    with bars, ThreadPoolExecutor(8) as executor:
        yield from run_all(units, partial(_run, by_name, bars), executor)


def _run(jobs: Mapping[str, Job], bars: ProgressBars, unit: Unit) -> Run:
    name = name_of(unit)
    bars.start(name)
    try:
        return run_stream(replace(jobs[name], on_progress=partial(bars.reached, name)))
    finally:
        bars.end(name)


def print_runs(
    console: Console, names: Sequence[str], runs: Iterable[Run], indent: int = 0
) -> Iterator[Run]:
    """Print each run of `runs` as it ends, and yield it; the streams have these names."""
    margin, width = " " * indent, console.width - indent
    columns = grid.fitting(lines.run_columns(names), width)
    longest = max([26, *map(len, names)])
    for number, run in enumerate(runs):
        if console.is_terminal:
            shown = [] if number else [grid.header(columns)]
            shown += grid.lines(columns, lines.run_row(run), width)
            console.print(*(Text(margin) + line for line in shown), sep="\n")
        else:
            print_lines(console, margin + lines.run_line(run, longest))
        yield run
