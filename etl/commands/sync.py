"""`callflow sync`: run streams once, now."""

import sys
from collections.abc import Sequence

from etl.commands import lines
from etl.commands.access import warehouse
from etl.commands.output import note, print_lines, shows_progress, stderr, stdout
from etl.commands.progress import run_jobs
from etl.commands.signals import stopping
from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.load.lease import process_name
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
) -> int:
    """Run the streams that are named, all without `names`; print each run, return the exit code."""
    units = select(settings, names)
    for warning in settings.warnings:
        note(warning)
    done = []
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
        for each in run_jobs(jobs, stderr(), quiet=as_json or not shows_progress()):
            done.append(each)
            if as_json:
                sys.stdout.write(documents.run_json(each) + "\n")
                sys.stdout.flush()
            else:
                print_lines(stdout(), lines.run_line(each))
    return exit_code(done)
