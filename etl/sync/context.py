"""What the steps of one run share: its surroundings, and what it reports if it breaks off."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from etl.extract.http import Http
from etl.load import runs, stage
from etl.load.changes import Log
from etl.load.runs import Progress
from etl.load.stage import TablePair
from etl.load.transaction import LeasedConnection
from etl.sync.job import Job
from etl.sync.plan import Plan


@dataclass(slots=True)
class Tally:
    """What a run has to report even if it breaks off, as far as it has come.

    The spine sets `watermark_before`, `plan` and `http` (which counts requests) when it has them;
    a scan counts `pages`, over all scans of the run. Nothing is decided by a tally, except that
    `etl.runs` records it.
    """

    run_id: str
    started_at: datetime
    watermark_before: datetime | None = None
    plan: Plan = field(default_factory=lambda: Plan("full", None))
    http: Http | None = None
    pages: int = 0


@dataclass(frozen=True, slots=True)
class RunContext:
    """The surroundings of a run that has its lease.

    `tables`   the stream's tables with their staging tables, the records' own first.
    `previous` how far the stream had come before.
    `rows`     how many rows the records' own table held when the run started.
    """

    job: Job
    database: LeasedConnection
    http: Http
    tables: Sequence[TablePair]
    previous: Progress
    rows: int
    tally: Tally

    @property
    def log(self) -> Log:
        """What of the stream's changes is logged: those of scopes that were known before."""
        stream, known = self.job.stream, self.previous.known_since
        return Log(self.job.settings.provider, stream.parts, stream.scope, known.keys())


def look_around(job: Job, database: LeasedConnection, http: Http, tally: Tally) -> RunContext:
    """Read how far the stream had come, and return the run's surroundings."""
    apart = tally.run_id if job.dry_run else ""
    pairs = [stage.pair_of(job.source, table, apart) for table in job.stream.tables]
    previous, rows = database.read(_before, job, pairs[0])
    tally.watermark_before = previous.watermark
    return RunContext(job, database, http, pairs, previous, rows, tally)


def _before(connection: Connection, job: Job, parent: TablePair) -> tuple[Progress, int]:
    previous = runs.progress(connection, job.source, job.stream.name)
    return previous, runs.count(connection, job.source, parent.current)
