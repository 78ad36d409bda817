"""What a scan saw, and whether that was the whole list. Values and pure functions only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from etl.errors import CallflowError, IncompleteError
from etl.extract.page import Page
from etl.transform.rows import Rows
from etl.warehouse.tables import Key

Known = Mapping[str, Collection[Key]]
"""Scope → keys of the records that are already in the warehouse."""


@dataclass(slots=True)
class Scope:
    """What one scan saw of one scope of the list (Page.scope).

    `partial`  whether only what was modified lately was asked for.
    `unkeyed`  records that became no row.
    `first_total`, `total`
               the API's own counts, in its first answer and in the last one.
    `anchored` whether no row can have slipped between two of its answers.
    `head`, `keys`
               keys in the first answer and in all of them; kept for lists that the API counts.
    """

    partial: bool = False
    pages: int = 0
    received: int = 0
    unkeyed: int = 0
    first_total: int | None = None
    total: int | None = None
    anchored: bool = True
    head: set[Key] = field(default_factory=set)
    keys: set[Key] = field(default_factory=set)

    def add(self, page: Page, keyed: int, keys: Sequence[Key], *, more: bool = False) -> None:
        """Count a page, of which `keyed` records became rows; `keys` are theirs, if they are kept.

        `more` says that it is a further part of the page that was counted last.
        """
        if not more:
            self.pages += 1
        if self.pages == 1:
            self.first_total = page.total
            self.head.update(keys)
        self.received += len(page.records)
        self.unkeyed += len(page.records) - keyed
        self.total = page.total
        self.anchored &= page.anchored
        self.keys.update(keys)


@dataclass(slots=True)
class Scan:
    """What one scan of the whole list saw.

    `start`        ordinal, within the run, of its first record.
    `number`       which scan of the run it is: 1, 2, …
    `reject`       why the first of the rejected records was rejected, for a message.
    `newest_first` whether its records came in the order of their modification, newest first.
    `newest`, `oldest`
                   modification times of its first and of its last record (UTC).
    `incomplete_because`
                   the error that ended it before the list ended.
    """

    start: int = 0
    number: int = 1
    pages: int = 0
    received: int = 0
    rejected: int = 0
    reject: str = ""
    warnings: int = 0
    newest_first: bool = True
    newest: datetime | None = None
    oldest: datetime | None = None
    scopes: dict[str, Scope] = field(default_factory=dict)
    incomplete_because: CallflowError | None = None

    def add(
        self,
        page: Page,
        rows: Rows,
        keyed: int,
        keys: Sequence[Key],
        *,
        partial: bool,
        more: bool = False,
    ) -> None:
        """Count a page that became `rows`, `keyed` of them records of the list's own table.

        `keys` are theirs, if they are kept; `partial` says that only changes were asked for,
        `more` that this is a further part of the page that was counted last.
        """
        self.scopes.setdefault(page.scope, Scope(partial)).add(page, keyed, keys, more=more)
        self.pages += not more
        self.received += len(page.records)
        self.rejected += len(rows.rejects)
        self.warnings += rows.warnings

    def order(self, times: Sequence[datetime | None]) -> None:
        """Note the modification times of a page's records, in the order in which they came."""
        for time in times:
            if time is None or (self.oldest is not None and time > self.oldest):
                self.newest_first = False
                return
            self.newest = self.newest or time
            self.oldest = time

    @property
    def end(self) -> int:
        """Return the ordinal, within the run, of the record that comes next."""
        return self.start + self.received

    def reached(self, scopes: int) -> tuple[int, int | None]:
        """Return how many records it has seen, and how many it will have; None: not known.

        A record that came twice counts once if the API counts the list. `scopes` are all that are
        to be scanned: before the last one has started, the length of the list is not known, nor is
        the number of changes where only those are asked for.
        """
        parts = self.scopes.values()
        seen = sum(len(part.keys) + part.unkeyed if part.keys else part.received for part in parts)
        totals = [part.total for part in parts if part.total is not None and not part.partial]
        return seen, max(seen, sum(totals)) if len(totals) == scopes else None


@dataclass(frozen=True, slots=True)
class Proof:
    """What the scans of a run prove together.

    `incomplete_because` why they may have missed something; None when they saw the whole list.
    `starts`             scope → ordinal of the first record that counts: a record that was seen
                         before it, and not since, is no longer in the list.
    """

    incomplete_because: CallflowError | None = None
    starts: Mapping[str, int] = field(default_factory=dict)


def prove(scans: Sequence[Scan], known: Known, *, counted: bool, where: str) -> Proof:
    """Decide whether the last of `scans` reached the end and, with those before, saw everything.

    `counted` says that the API reports how many rows its list has. `where` names the stream in
    messages.
    """
    last = scans[-1]
    if last.incomplete_because is not None:
        return Proof(last.incomplete_because)
    worst = max(scans, key=lambda scan: scan.rejected)
    starts: dict[str, int] = {}
    for name in last.scopes:
        history = [scan.scopes[name] for scan in scans if name in scan.scopes]
        since = _proven_since(history, known.get(name, ())) if counted else len(history) - 1
        if since is None:
            # A rejected record is missing in every count, and it is the reason that can be fixed.
            return Proof(rejected(worst, where) or _shortfall(history, name, known, where))
        starts[name] = [scan.start for scan in scans if name in scan.scopes][since]
    return Proof(rejected(worst, where), starts)


def _proven_since(scans: Sequence[Scope], known: Collection[Key]) -> int | None:
    """Return the index of a scan since whose start everything in the list was seen, if any."""
    last, number = scans[-1], len(scans) - 1
    if last.partial:
        reconciled = last.first_total == len(last.keys.union(known))
        return number if last.anchored and reconciled else None
    if last.pages == 1 and last.total in (None, last.received):
        return number  # one answer, one instant, the whole list
    if last.anchored and last.total is not None and len(last.keys) >= last.total:
        return number
    return complete_since(scans, known)


def complete_since(scans: Sequence[Scope], known: Collection[Key]) -> int | None:
    """Return the index of the latest scan whose first answer's rows are all known by now, if any.

    A record that was seen before that answer or in it, and again in it or later, was in the list at
    the instant of that answer. When there are as many such records as the answer counts, they are
    all that there were, and a record that was not seen since is gone. This needs no order and no
    meaning of page tokens; it needs a count that is exact at the instant of its answer, and ids
    that are never used twice.
    """
    for number in range(len(scans) - 1, -1, -1):
        since = set().union(*(scan.keys for scan in scans[number:]))
        before = scans[number].head.union(known, *(scan.keys for scan in scans[:number]))
        if len(since & before) == scans[number].first_total:
            return number
    return None


def _shortfall(scans: Sequence[Scope], name: str, known: Known, where: str) -> IncompleteError:
    scope = scans[-1]
    seen = len(scope.keys)
    advice = "it changes faster than it can be read; the next run tries again"
    if scope.partial:
        both = scope.keys.union(known.get(name, ()))
        what = f"the list has {scope.first_total} rows, {len(both)} are known"
        what = what if scope.anchored else "the list moved while it was read"
    elif scope.total is None:
        what = f"the list came in {scope.pages} pages, but does not say how many rows it has"
        advice = "nothing is removed without that count; report it to the provider if it stays"
    elif seen == scope.total:
        what = f"{seen} rows were returned, but they moved between the pages"
    else:
        what = f"the list says that it has {scope.total} rows, but {seen} were returned"
        twice = scope.received - scope.unkeyed - seen
        what += f", {twice} of them twice" if twice > 0 and not scope.anchored else ""
        if len(scans) > 1 and all(_alike(scope, each) for each in scans):
            what += f", the same ones in each of {len(scans)} scans"
            advice = "nothing is removed while the provider's count does not fit its list; the"
            advice += " next run tries again, report it to the provider if it stays"
    return IncompleteError(
        what,
        kind="incomplete_scan",
        where=f"{where} {name}".strip(),
        advice=advice,
    )


def _alike(one: Scope, other: Scope) -> bool:
    """Whether two scans saw the same records, and the same count in each answer."""
    counts = {one.first_total, one.total, other.first_total, other.total}
    return len(counts) == 1 and one.keys == other.keys


def rejected(scan: Scan, where: str) -> IncompleteError | None:
    """Return that records of the scan could not be loaded; None if all could."""
    if not scan.rejected:
        return None
    count = "1 record" if scan.rejected == 1 else f"{scan.rejected} records"
    return IncompleteError(
        f"{count} could not be loaded ({scan.reject})",
        kind="rejected_rows",
        where=where,
        advice="see etl.rejects for each of them and why; nothing was removed",
    )
