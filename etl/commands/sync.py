"""`callflow sync`: run streams once, now."""

import sys
import time
from collections.abc import Callable, Sequence

from etl.commands import lines
from etl.commands.access import warehouse
from etl.commands.output import note, print_lines, stderr, stdout
from etl.commands.progress import print_runs, run_jobs
from etl.commands.signals import stopping
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.load.lease import process_name
from etl.load.runs import Run
from etl.status import documents
from etl.sync.job import Job
from etl.sync.selection import exit_code, select


def run(
    settings: Settings,
    redact: Redactor,
    names: Sequence[str],
    *,
    full: bool,
    accept_deletes: bool,
    with_migrate: bool,
    as_json: bool,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the streams that are named, all without `names`; print each run, return the exit code.

    `clock` counts seconds.
    """
    units = select(settings, names)
    for warning in settings.warnings:
        note(warning)
    started = clock()
    done: list[Run] = []
    with (
        warehouse(settings, redact, allow_behind=with_migrate, notes=True) as engine,
        stopping() as stopped,
    ):
        holder = process_name()
        jobs = [
            Job(engine, stream, source, holder, accept_deletes, full, stopped=stopped.is_set,
                redact=redact)
            for source, stream in units
        ]  # fmt: skip
        results, messages = stdout(), stderr()
        runs = run_jobs(jobs, results, messages, quiet=as_json)
        if not as_json:
            runs = print_runs(results, [job.name for job in jobs], runs)
        for each in runs:
            done.append(each)
            if as_json:
                sys.stdout.write(documents.run_json(each) + "\n")
                sys.stdout.flush()
    if len(done) > 1 and not as_json:
        sys.stdout.flush()
        print_lines(messages, lines.totals(done, clock() - started))
    return exit_code(done)
