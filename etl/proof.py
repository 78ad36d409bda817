"""What a scan saw, and whether that was everything. Values and pure functions only."""

from dataclasses import dataclass, field

from etl.errors import CallflowError, IncompleteError
from etl.load.stage import Settled
from etl.model import Page, Rows

BRAKE_ROWS, BRAKE_SHARE = 10, 0.10
"""More rows than both of these are never removed at once without `--accept-deletes`."""


@dataclass(slots=True)
class Scope:
    """What a scan saw of one scope of the list (Page.scope)."""

    pages: int = 0
    received: int = 0
    unkeyed: int = 0
    total: int | None = None
    anchored: bool = True


@dataclass(slots=True)
class Scan:
    """What a scan saw; `doubt` is what speaks against its having seen everything."""

    scopes: dict[str, Scope] = field(default_factory=dict)
    settled: Settled = field(default_factory=lambda: Settled({}, frozenset()))
    received: int = 0
    rejected: int = 0
    warnings: int = 0
    doubt: CallflowError | None = None

    def add(self, page: Page, rows: Rows, keyed: int) -> None:
        """Count a page, `keyed` records of which became rows."""
        scope = self.scopes.setdefault(page.scope, Scope())
        scope.pages += 1
        scope.received += len(page.records)
        scope.unkeyed += len(page.records) - keyed
        scope.total = page.total
        scope.anchored &= page.anchored
        self.received += len(page.records)
        self.rejected += len(rows.rejects)
        self.warnings += rows.warnings

    @property
    def total(self) -> int | None:
        """Records of the scopes begun so far by the API's own counts; None where it gives none."""
        totals = [scope.total for scope in self.scopes.values() if scope.total is not None]
        return sum(totals) if len(totals) == len(self.scopes) else None

    @property
    def records(self) -> int:
        """Records of the list, a repeated one once."""
        unkeyed = sum(scope.unkeyed for scope in self.scopes.values())
        return sum(self.settled.distinct.values()) + unkeyed


def shortfall(scan: Scan, where: str) -> IncompleteError | None:
    """What the API's own counts, and rejected records, say against the scan."""
    for name, scope in scan.scopes.items():
        seen = scan.settled.distinct.get(name, 0) + scope.unkeyed
        one_page = scope.pages == 1 and scope.received == scope.total
        if scope.total is None or seen == scope.total or one_page:
            continue
        return IncompleteError(
            f"the list says that it has {scope.total} rows, but {seen} were returned",
            kind="incomplete_scan",
            where=f"{where} {name}".strip(),
            advice="it changes faster than it can be read; the next run tries again",
        )
    return None


def repeats(scan: Scan, former: Scan | None) -> bool:
    """The list itself repeats rows: two scans in a row met the same ones twice, and all it has."""
    return (
        former is not None
        and scan.settled == former.settled
        and scan.scopes == former.scopes
        and all(scope.received == scope.total for scope in scan.scopes.values())
    )


def rejected(scan: Scan, where: str) -> IncompleteError | None:
    """The doubt about a scan some of whose records no table can hold."""
    if not scan.rejected:
        return None
    return IncompleteError(
        f"{scan.rejected} records could not be loaded",
        kind="rejected_rows",
        where=where,
        advice="see etl.rejects for each of them and why; nothing was removed",
    )


def unanchored(scan: Scan, where: str) -> IncompleteError | None:
    """Between two pages of the scan a row may have slipped: it cannot say what is gone."""
    loose = [name for name, scope in scan.scopes.items() if not scope.anchored]
    if not loose:
        return None
    return IncompleteError(
        "rows are no longer listed, but the list moved while it was read; they are kept",
        kind="undecided",
        where=f"{where} {loose[0]}".strip(),
        advice="nothing to do: the next run reads the list again",
    )


def brake(scan: Scan, missing: int, rows: int, where: str) -> IncompleteError | None:
    """Refuse to remove suspiciously much at once: a wrong account, a lost permission, an outage."""
    if scan.received and missing <= max(BRAKE_ROWS, int(rows * BRAKE_SHARE)):
        return None
    return IncompleteError(
        f"{missing} of {rows} rows were not returned; nothing was removed",
        kind="safety_stop",
        where=where,
        advice=f"if that is right, run `callflow sync {where} --full --accept-deletes`",
    )
