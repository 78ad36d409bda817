"""Six algorithms that look right and are wrong, and the right one that three of them come close to.

Each takes a Job and returns a Run as `run_stream` does: it reads with the product's extractors
over HTTP and writes with the product's merge, so that only its own idea is wrong. The checker of
the histories catches every one of them: test_histories.py.

`ALGORITHMS` holds factories, because one algorithm remembers something between the runs of a
history. That stands for a table, so it is updated only after the transaction it belongs to.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from etl.errors import ProviderError
from etl.extract.http import Http
from etl.extract.page import Page
from etl.load import merge, runs, stage
from etl.load.runs import Outcome, Run
from etl.load.stage import TablePair
from etl.providers.declare import request
from etl.sync.job import Job
from etl.transform.rows import Rows
from etl.warehouse import tables
from etl.warehouse.tables import Key

RunStream = Callable[[Job], Run]

OVERLAP = timedelta(minutes=10)


@dataclass(slots=True)
class RunContext:
    """A run under way: where it reads and writes; `now` is the time of its changes."""

    job: Job
    http: Http
    connection: Connection
    run: Run
    pairs: Sequence[TablePair]
    now: datetime
    watermark: datetime | None
    ordinal: int = 0

    def pages(self) -> Iterator[tuple[Page, Rows]]:
        """Yield the whole list, as the product's extractor reads it."""
        stream = self.job.stream
        with closing(stream.pages(self.http, request(self.job.settings, stream))) as pages:  # type: ignore[type-var]
            for page in pages:
                yield page, self.rows(page)

    def rows(self, page: Page) -> Rows:
        rows = self.job.stream.transform(page, self.ordinal)
        self.ordinal += len(page.records)
        return rows

    def times(self, rows: Rows) -> list[datetime]:
        """Return the records' times of modification."""
        records = self.job.stream.tables[0]
        assert self.job.stream.modified is not None
        place = 2 + tables.data_columns(records).index(self.job.stream.modified)
        return [row[place] for row in rows.tables[records.fullname]]

    def put(self, batch: Iterable[Rows], choose: Callable[[list[Key]], list[Key]]) -> list[Key]:
        """Merge rows in a transaction; `choose` returns which of the absent ones to remove."""
        with self.connection.begin():
            stage.prepare(self.connection, self.pairs)
            for rows in batch:
                for pair in self.pairs:
                    found = rows.tables[pair.current.fullname]
                    stage.copy(self.connection, pair.stage, found)
            stage.deduplicate(self.connection, self.pairs, {}, self.job.stream.scope, None)
            absent = merge.unlisted(self.connection, self.run.source, self.pairs[0], [])
            gone = choose(absent)
            written = merge.merge(self.connection, self.run.source, self.pairs, gone, self.now)
            self.run = replace(
                self.run,
                inserted=self.run.inserted + written.inserted,
                updated=self.run.updated + written.updated,
                deleted=self.run.deleted + written.deleted,
                rows_written=self.run.rows_written + written.rows,
            )
            if written.rows:
                self.save(changed_at=self.now)
        return absent

    def save(self, **state: Any) -> None:
        """Save values in etl.streams, in the open transaction."""
        row = insert(tables.streams).values(source=self.run.source, stream=self.run.stream, **state)
        self.connection.execute(
            row.on_conflict_do_update(index_elements=["source", "stream"], set_=state)
        )

    def save_watermark(self, times: Iterable[datetime]) -> None:
        newest = max([*times, *([self.watermark] if self.watermark else [])], default=None)
        with self.connection.begin():
            self.save(watermark=newest)

    def confirmed(self, absent: list[Key]) -> list[Key]:
        """Return those that the provider reports as gone."""
        look_up = self.job.stream.look_up
        assert look_up is not None
        try:
            answers = [(key, look_up(self.http, key)) for key in absent]
        except ProviderError:  # the source has no right to ask
            return []
        return [key for key, answer in answers if answer.state == "gone"]


@contextmanager
def recorded_run(job: Job) -> Iterator[RunContext]:
    """Open connections; record the run at the end, as failed if the provider failed."""
    source, stream = job.settings.name, job.stream
    run = Run(uuid.uuid4().hex, source, stream.name, "full", datetime.now(UTC))
    http = job.connect()
    with http, job.engine.connect() as connection:
        with connection.begin():
            previous = runs.progress(connection, source, stream.name)
            now = runs.instant(connection, previous.changed_at)
        pairs = [stage.pair_of(source, table) for table in stream.tables]
        context = RunContext(job, http, connection, run, pairs, now, previous.watermark)
        outcome = None
        try:
            yield context
            context.run, outcome = replace(context.run, status="complete"), Outcome(0)
        except ProviderError as error:
            context.run = replace(
                context.run, status="failed", error_kind=error.kind, error=str(error)
            )
        with connection.begin():
            context.run = runs.finish(connection, context.run, outcome)


def naive_delete() -> RunStream:
    """Delete what the scan did not return."""

    def run(job: Job) -> Run:
        with recorded_run(job) as context:
            context.put([rows for _, rows in context.pages()], lambda absent: absent)
        return context.run

    return run


def absent_twice() -> RunStream:
    """Delete what two scans in a row did not return."""
    before: set[Key] = set()

    def run(job: Job) -> Run:
        with recorded_run(job) as context:
            found = [rows for _, rows in context.pages()]
            absent = context.put(found, lambda absent: [key for key in absent if key in before])
            before.clear()
            before.update(absent)
        return context.run

    return run


def no_anchors() -> RunStream:
    """Read pages by offset until TotalCount rows are read; delete what was not returned."""

    def run(job: Job) -> Run:
        with recorded_run(job) as context:
            found, whole = [], True
            for instance in job.settings.instance_ids:
                pages = list(_by_offset(context, instance))
                found += [context.rows(page) for page in pages]
                ids = {record["ContactFlowId"] for page in pages for record in page.records}
                whole &= len(ids) >= (pages[-1].total or 0)
            context.put(found, lambda absent: absent if whole else [])
        return context.run

    return run


def _by_offset(context: RunContext, instance: str) -> Iterator[Page]:
    """Yield pages with the oldest change first, as long as the extractor's first page."""
    settings = context.job.settings.model_copy(update={"instance_ids": (instance,)})
    ask = replace(request(settings, context.job.stream), exact=None)
    with closing(context.job.stream.pages(context.http, ask)) as pages:  # type: ignore[type-var]
        first = next(iter(pages))
    yield first
    size, number = len(first.records), 1
    total = first.total or 0
    while number * size < total:
        number += 1
        asked = {
            "InstanceId": instance,
            "PageNumber": str(number),
            "PageSize": str(size),
            "OrderByField": "updatedTime",
            "SortOrder": "ASC",
        }
        data = context.http.call("POST", "/", asked)["Data"]
        total = data["TotalCount"]
        yield Page(data["List"], number, instance, total)


def closed_watermark() -> RunStream:
    """Merge what changed since the watermark less an overlap. This is not one of the six.

    The watermark moves at the end, after the rows. Only changes without a new time are missed.
    """
    return _watermarked(open_=False, save="after the rows")


def open_watermark() -> RunStream:
    """Merge what changed after the watermark: `updated > watermark`."""
    return _watermarked(open_=True, save="after the rows")


def watermark_per_page() -> RunStream:
    """Save the watermark with every page of a list that has the newest first."""
    return _watermarked(open_=False, save="per page")


def watermark_before_rows() -> RunStream:
    """Save the watermark first, and then the rows that it stands for."""
    return _watermarked(open_=False, save="before the rows")


def _watermarked(*, open_: bool, save: str) -> RunStream:
    def run(job: Job) -> Run:
        with recorded_run(job) as context:
            mark = context.watermark

            def wanted(time: datetime) -> bool:
                if mark is None:
                    return True
                return time > mark if open_ else time >= mark - OVERLAP

            seen: set[Key] = set()
            found: list[Rows] = []
            times: list[datetime] = []
            for number, (_, rows) in enumerate(context.pages()):
                times += context.times(rows)
                seen |= _keys(context, rows)
                changed = _only(context, rows, wanted)
                if save == "per page":
                    context.put([changed], lambda absent: [])
                if save == "per page" or (save == "before the rows" and not number):
                    context.save_watermark(times)
                found.append(changed)
            context.put(
                found, lambda absent: context.confirmed([k for k in absent if k not in seen])
            )
            context.save_watermark(times)
        return context.run

    return run


def _keys(context: RunContext, rows: Rows) -> set[Key]:
    records = context.job.stream.tables[0]
    width = len(tables.key_columns(records))
    return {row[2 : 2 + width] for row in rows.tables[records.fullname]}


def _only(context: RunContext, rows: Rows, wanted: Callable[[datetime], bool]) -> Rows:
    """Return the wanted records, with their children. The ordinal is each row's first value."""
    records = context.job.stream.tables[0].fullname
    ordinals = {
        row[0]
        for row, time in zip(rows.tables[records], context.times(rows), strict=True)
        if wanted(time)
    }
    return Rows(
        {name: [row for row in found if row[0] in ordinals] for name, found in rows.tables.items()}
    )


ALGORITHMS: Mapping[str, Callable[[], RunStream]] = {
    maker.__name__: maker
    for maker in (
        naive_delete,
        absent_twice,
        no_anchors,
        open_watermark,
        watermark_per_page,
        watermark_before_rows,
        closed_watermark,
    )
}
