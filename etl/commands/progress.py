"""Run streams for a person who watches."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from etl.load.runs import Run
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.sync.selection import Unit, name_of, run_all


class ProgressBars:
    """Shows how many records each stream has read: bars on a terminal, nothing elsewhere."""

    def __init__(self, console: Console, names: Sequence[str], *, quiet: bool = False) -> None:
        self.shown = console.is_terminal and not quiet
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("records"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.shown,
        )
        self._tasks: dict[str, TaskID] = {
            name: self._progress.add_task(name, total=None, start=False) for name in names
        }

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

    def page(self, name: str, records: int, total: int | None) -> None:
        """Show that `name` has read `records` of `total`; None if the API does not count them."""
        task = self._tasks[name]
        self._progress.start_task(task)
        self._progress.update(task, completed=records, total=total)

    def done(self, name: str) -> None:
        """Hide the bar of `name`: it has ended."""
        self._progress.update(self._tasks[name], visible=False)


def run_jobs(jobs: Sequence[Job], messages: Console, *, quiet: bool = False) -> Iterator[Run]:
    """Run `jobs` and yield their runs as they end, with progress bars if `messages` is a terminal.

    Accounts run side by side, the streams of one in turn. Raises what `run_stream` raises.
    """
    by_name = {job.name: job for job in jobs}
    units = [(job.settings, job.stream) for job in jobs]
    with (
        ProgressBars(messages, list(by_name), quiet=quiet) as bars,
        ThreadPoolExecutor(8) as executor,
    ):
        finished = run_all(units, partial(_run, by_name, bars), executor)
        # Lines cannot be printed above bars that are still being drawn.
        yield from list(finished) if bars.shown else finished


def _run(jobs: Mapping[str, Job], bars: ProgressBars, unit: Unit) -> Run:
    name = name_of(unit)
    run = run_stream(replace(jobs[name], on_page=partial(bars.page, name)))
    bars.done(name)
    return run
