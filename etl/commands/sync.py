"""`callflow sync`: run streams once, now."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from rich.console import Console

from etl.commands import lines, outlook_lines
from etl.commands.access import warehouse
from etl.commands.output import note, print_lines, shows_progress, stderr, stdout
from etl.commands.progress import print_runs, run_jobs
from etl.commands.signals import stopping
from etl.commands.standard import required
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.errors import ConfigError, OutputError
from etl.load.lease import process_name
from etl.load.runs import Run
from etl.status import documents
from etl.sync.job import Job
from etl.sync.outlook import Outlook
from etl.sync.selection import exit_code, name_of, select


def run(
    settings: Settings,
    redact: Redactor,
    names: Sequence[str],
    *,
    full: bool,
    accept_deletes: bool,
    dry_run: bool,
    with_migrate: bool,
    as_json: bool,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the streams that are named, all without `names`; print each run, return the exit code.

    Before rows are deleted because of `accept_deletes`, prints which. Raises ConfigError for a
    `dry_run` that should migrate. `clock` counts seconds.
    """
    if dry_run and with_migrate:
        raise ConfigError(
            "a dry run writes nothing, so it migrates nothing",
            where="--dry-run",
            advice="leave out --migrate, or run `callflow migrate` first",
        )
    units = select(settings, names)
    for warning in settings.warnings:
        note(warning)
    started = clock()
    done: list[Run] = []
    results, messages = stdout(), stderr()
    outlooks = {name_of(unit): Outlook(dry_run) for unit in units}

    def on_outlook(name: str, outlook: Outlook) -> None:
        outlooks[name] = outlook
        _announce(messages, name, outlook, redact)

    with (
        warehouse(
            settings, redact, allow_behind=with_migrate, notes=True, unchanged=dry_run
        ) as engine,
        stopping() as stopped,
    ):
        holder = process_name()
        jobs = [
            Job(engine, stream, source, holder, accept_deletes, full, stopped=stopped.is_set,
                redact=redact, dry_run=dry_run,
                on_outlook=partial(on_outlook, name_of((source, stream))))
            for source, stream in units
        ]  # fmt: skip
        quiet = as_json or not shows_progress()
        # If nobody reads what is printed, the runs end before the engine is disposed of.
        with closing(run_jobs(jobs, results, messages, quiet=quiet)) as running:
            names = [job.name for job in jobs]
            for each in running if as_json else print_runs(results, names, running):
                done.append(each)
                outlook = outlooks[f"{each.source}.{each.stream}"]
                if as_json:
                    sys.stdout.write(documents.run_json(each, outlook) + "\n")
                    sys.stdout.flush()
                elif dry_run:
                    for line in outlook_lines.foreseen(outlook):
                        print_lines(results, line, indent=10)
    if len(done) > 1 and not as_json:
        sys.stdout.flush()
        print_lines(messages, lines.totals(done, clock() - started))
    if dry_run:
        sys.stdout.flush()  # if stdout is broken, fail here, before the note on stderr
        note("this was a dry run; nothing was written")
    return exit_code(done)


def _announce(messages: Console, name: str, outlook: Outlook, redact: Redactor) -> None:
    """Print whom the run of the stream `name` is about to delete. Raises OutputError."""
    try:
        with required(sys.stderr):
            for line in outlook_lines.deletes(name, outlook, partial(redact.name, limit=80)):
                print_lines(messages, line, indent=8)
    except OSError as error:
        raise OutputError(
            f"stderr cannot be written, so nothing was deleted: {error.strerror}",
            where=name,
            advice="let stderr lead to a terminal or a file, then run again",
        ) from error
