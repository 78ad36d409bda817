"""What a scan saw, and whether that was everything. Values and pure functions only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from etl.errors import CallflowError, IncompleteError
from etl.extract.page import Page
from etl.transform.rows import Rows
from etl.warehouse.tables import Key

BRAKE_ROWS, BRAKE_SHARE = 10, 0.10
"""More rows than both of these are never removed at once without `--accept-deletes`."""

Known = Mapping[str, Collection[Key]]
"""Scope → keys of the records that are in the warehouse already."""


@dataclass(slots=True)
class Scope:
    """What one scan saw of one scope of the list (Page.scope).

    `partial`     only what was modified lately was asked for.
    `first_total` and `total` are the API's own counts in the first and in the last answer.
    `head` and `keys` are kept for lists that the API counts: the keys in the first answer, and in
    all of them.
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
        """Count a page; `keyed` of its records became rows, `keys` are theirs, if they are kept.

        `more`: it is a further part of the page that was counted last.
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

    `begin`        ordinal, within the run, of its first record.
    `newest_first` whether its records came in the order of their modification, newest first.
    `oldest`       modification time of its last record.
    `doubt`        the error that ended it before the list did.
    `reject`       why the first of those that were rejected was, for a message.
    """

    begin: int = 0
    pages: int = 0
    received: int = 0
    rejected: int = 0
    reject: str = ""
    warnings: int = 0
    newest_first: bool = True
    newest: datetime | None = None
    oldest: datetime | None = None
    scopes: dict[str, Scope] = field(default_factory=dict)
    doubt: CallflowError | None = None

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

        `keys` are theirs, where they are kept; `partial`: only changes were asked for; `more`: it
        is a further part of the page that was counted last.
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
    def total(self) -> int | None:
        """Records of the scopes begun so far by the API's own counts; None where it gives none."""
        totals = [scope.total for scope in self.scopes.values() if scope.total is not None]
        return sum(totals) if len(totals) == len(self.scopes) else None


@dataclass(frozen=True, slots=True)
class Proof:
    """What the scans of a run prove together.

    `doubt`    what speaks against their having seen everything; None: they have.
    `begins`   scope → ordinal from which on records count: what was seen before it, and not since,
               is no longer in the list.
    """

    doubt: CallflowError | None = None
    begins: Mapping[str, int] = field(default_factory=dict)


def prove(scans: Sequence[Scan], known: Known, *, counted: bool, where: str) -> Proof:
    """Whether the last of `scans` came to the end and, with the help of those before, saw all.

    `counted`: the API tells how many rows its list has. `where` names the stream in messages.
    """
    last = scans[-1]
    if last.doubt is not None:
        return Proof(last.doubt)
    worst = max(scans, key=lambda scan: scan.rejected)
    begins: dict[str, int] = {}
    for name in last.scopes:
        history = [scan.scopes[name] for scan in scans if name in scan.scopes]
        certified = _proven_from(history, known.get(name, ())) if counted else len(history) - 1
        if certified is None:
            # A rejected record is missing in every count: it is the reason that can be mended.
            return Proof(_rejected(worst, where) or _shortfall(history, name, known, where))
        begins[name] = [scan.begin for scan in scans if name in scan.scopes][certified]
    return Proof(_rejected(worst, where), begins)


def _proven_from(scans: Sequence[Scope], known: Collection[Key]) -> int | None:
    """The scan from which on everything was seen that was in the list when it began, if any."""
    last, number = scans[-1], len(scans) - 1
    if last.partial:
        reconciled = last.first_total == len(last.keys.union(known))
        return number if last.anchored and reconciled else None
    if last.pages == 1 and last.total in (None, last.received):
        return number  # one answer, one instant, the whole list
    if last.anchored and last.total is not None and len(last.keys) >= last.total:
        return number
    return certified(scans, known)


def certified(scans: Sequence[Scope], known: Collection[Key]) -> int | None:
    """The latest scan whose first answer's rows are all known by now, or None.

    A record that was seen before that answer (or in it) and again in it or later was in the list at
    its instant. When there are as many of these as the answer counts, they are all that there were:
    whatever was not seen since had gone. Needs no order and no meaning of page tokens, only that a
    count is exact at the instant of its answer and that ids are not used twice.
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
    elif seen == scope.total:
        what = f"{seen} rows were returned, but they moved between the pages"
    else:
        what = f"the list says that it has {scope.total} rows, but {seen} were returned"
        twice = scope.received - scope.unkeyed - seen
        what += f", {twice} of them twice" if twice > 0 and not scope.anchored else ""
        if len(scans) > 1 and all(_alike(scope, each) for each in scans):
            what += f", the same ones in each of {len(scans)} scans"
            advice = "nothing is removed while the provider's count does not fit its list; the"
            advice += " next run tries again, tell the provider if it stays"
    return IncompleteError(
        what,
        kind="incomplete_scan",
        where=f"{where} {name}".strip(),
        advice=advice,
    )


def _alike(one: Scope, other: Scope) -> bool:
    """Whether two scans saw the same records and the same counts all along."""
    counts = {one.first_total, one.total, other.first_total, other.total}
    return len(counts) == 1 and one.keys == other.keys


def _rejected(scan: Scan, where: str) -> IncompleteError | None:
    if not scan.rejected:
        return None
    count = "1 record" if scan.rejected == 1 else f"{scan.rejected} records"
    return IncompleteError(
        f"{count} could not be loaded ({scan.reject})",
        kind="rejected_rows",
        where=where,
        advice="see etl.rejects for each of them and why; nothing was removed",
    )


def brake(
    missing: Collection[Key], rows: int, empty: Collection[str], scoped: bool, where: str
) -> IncompleteError | None:
    """Refuse to remove suspiciously much at once: a wrong account, a lost permission, an outage.

    `rows` are in the table now; `empty` are scopes of which nothing at all was returned; `scoped`
    tells that the first part of a key is its scope.
    """
    emptied = empty and (not scoped or any(key[0] in empty for key in missing))
    if not emptied and len(missing) <= max(BRAKE_ROWS, int(rows * BRAKE_SHARE)):
        return None
    source, _, stream = where.partition(".")
    return IncompleteError(
        f"{len(missing)} of {rows} {stream.replace('_', ' ')} of {source} were not returned; "
        "nothing was removed",
        kind="safety_stop",
        where=where,
        advice=f"if that is right, run `callflow sync {source} --full --accept-deletes`",
    )
