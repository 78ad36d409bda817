"""Every error that callflow raises on purpose.

    CallflowError                 what happened, where, what to do now
    ├── ConfigError               callflow.toml, the environment, the command line     exit 2
    ├── BusyError                 another run holds the lease                          exit 75
    ├── ProviderError             a stream cannot continue                             exit 1
    │   ├── CredentialsError      refused: wrong key, missing scope, wrong clock
    │   │   └── ForbiddenError    the key is good, but lacks the right to what was asked for
    │   ├── UnavailableError      no usable answer after all retries
    │   ├── ContractError         an answer that the provider's documents rule out
    │   │   ├── MissingError      what was asked for does not exist, says the provider
    │   │   ├── UnreadableError   it exists, but may not be read, says the provider
    │   │   ├── WithdrawnError    it was there once, and is no more, says the provider
    │   │   └── TooLargeError     a page larger than callflow reads, or than the provider gives
    │   ├── PageTokenError        the page token was refused; the scan can start over
    │   ├── UnreachableRowsError  the list is longer than the API lets anyone page
    │   └── NotAvailableError     the account lacks the list, or it has ended: no failure  exit 0
    ├── IncompleteError           the run ended, but cannot prove that it saw everything  exit 1
    ├── WarehouseError            Postgres                                             exit 1
    │   ├── EmbeddedError         the embedded Postgres cannot be run or stopped
    │   ├── SchemaError           behind on migrations, or not ours
    │   └── LeaseLostError        another run took the lease over; nothing more is written
    ├── QueryError                a query of the user's that Postgres refuses          exit 2
    ├── OutputError               stdout or stderr cannot be written to                exit 1
    ├── HungError                 a run made no progress, and is given up              exit 1
    ├── ShortageError             the process is out of memory                         exit 1
    ├── InternalError             a bug                                                exit 1
    └── StoppedError              asked to stop; what was not committed is rolled back exit 130, 143

`kind` is the word that is recorded in `etl.runs.error_kind`. Three more are caught in the stage
that raises them, and never reach a user as they are:

    Retry                         a judge's verdict on an answer: ask again
    TooMuchError                  a text larger than callflow reads                    a ValueError
    UnkeyedError                  a record without a usable key                        a ValueError
"""

from pathlib import Path


class CallflowError(Exception):
    """An error that a person can act on.

    `what` says what happened, `where` names the place (source, stream, page, key, file), `advice`
    says what to do now. None of them may contain a secret.
    """

    kind: str = "internal"
    exit_code: int = 1

    def __init__(self, what: str, *, where: str = "", advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.advice = advice

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" → {self.advice}" if self.advice else ""
        return f"{place}{self.what}{advice}"


class ConfigError(CallflowError):
    """The configuration or the command line is wrong; nothing was started."""

    kind = "config"
    exit_code = 2


class BusyError(CallflowError):
    """Another run of the same stream holds the lease."""

    kind = "busy"
    exit_code = 75


class ProviderError(CallflowError):
    """A provider's API cannot give the next page."""

    kind = "provider"


class CredentialsError(ProviderError):
    """The provider refused the credentials, a scope or the clock. Retrying does not help."""

    kind = "credentials"


class ForbiddenError(CredentialsError):
    """The provider's own definite answer that these credentials lack a right, or their account."""


class UnavailableError(ProviderError):
    """The provider gave no usable answer, and the retries are spent.

    `wait`: the delay that the provider asked for, in seconds, if it exceeds what a run waits.
    """

    kind = "unavailable"

    def __init__(
        self, what: str, *, where: str = "", advice: str = "", wait: float | None = None
    ) -> None:
        super().__init__(what, where=where, advice=advice)
        self.wait = wait


class ContractError(ProviderError):
    """The provider gave an answer that its own documents rule out."""

    kind = "contract"


class MissingError(ContractError):
    """The provider answered, definitely, that what was asked for does not exist."""


class UnreadableError(ContractError):
    """The provider's own definite answer that a record exists, but may not be read."""


class WithdrawnError(ContractError):
    """The provider's own definite answer that it does not offer any more what was asked for."""


class TooLargeError(ContractError):
    """The page is larger than callflow reads, or than the provider gives; fewer records may fit."""


class PageTokenError(ProviderError):
    """The provider refused a page token that it had issued; the scan can start over."""

    kind = "page_token"


class UnreachableRowsError(ProviderError):
    """The list is longer than the API lets anyone page; what could be read was read."""

    kind = "unreachable_rows"


class NotAvailableError(ProviderError):
    """A list that cannot be read although nothing failed; its rows are kept as they were.

    `kind` says why: "not_available", because the account lacks it or the credentials the right to
    it; "ended", because the provider has ended it.
    """

    exit_code = 0

    def __init__(self, what: str, *, kind: str, where: str = "", advice: str = "") -> None:
        super().__init__(what, where=where, advice=advice)
        self.kind = kind


class IncompleteError(CallflowError):
    """The run ended, but it cannot prove that it saw everything; it removed nothing.

    `kind` says why: incomplete_scan, incomplete_details, rejected_rows, undecided, safety_stop.
    """

    def __init__(self, what: str, *, kind: str, where: str = "", advice: str = "") -> None:
        super().__init__(what, where=where, advice=advice)
        self.kind = kind


class WarehouseError(CallflowError):
    """Postgres is not reachable, refuses, or is not in the state that callflow needs."""

    kind = "database"


class EmbeddedError(WarehouseError):
    """The embedded Postgres cannot be found, started, attached to or stopped."""


class SchemaError(WarehouseError):
    """The warehouse's schema is behind, ahead of, or unlike what this version needs."""

    kind = "database_schema"


class LeaseLostError(WarehouseError):
    """Another run took the lease over; this one must not write any more."""

    kind = "lease_lost"


class QueryError(CallflowError):
    """A query that the warehouse does not accept.

    `details` are lines that follow the message: where in the query, and what the server adds.
    """

    kind = "query"
    exit_code = 2

    def __init__(self, what: str, *, advice: str = "", details: str = "") -> None:
        super().__init__(what, where="sql", advice=advice)
        self.details = details

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.details)))


class OutputError(CallflowError):
    """Stdout or stderr cannot be written to, such as a file on a full disk."""

    kind = "output"


class HungError(CallflowError):
    """A run made no progress for too long."""

    kind = "hung"


class ShortageError(CallflowError):
    """The process cannot have the memory that the run needs."""

    kind = "memory"


class InternalError(CallflowError):
    """Something unforeseen: a bug of callflow, or of what it stands on."""


class StoppedError(CallflowError):
    """The run was asked to stop, by the signal of that number."""

    kind = "stopped"

    def __init__(self, what: str, *, signal: int = 2) -> None:
        super().__init__(what)
        self.exit_code = 128 + signal


class Retry(Exception):  # noqa: N818 - it is a verdict
    """A judge's verdict on an answer that may be better next time: ask again.

    `final`    is raised instead when the attempts are spent.
    `wait`     seconds to wait at least.
    `backoff`  False: ask again at once.
    `attempts` how many requests in total; None: as many as usual.
    """

    def __init__(
        self,
        final: ProviderError,
        *,
        wait: float = 0.0,
        backoff: bool = True,
        attempts: int | None = None,
    ) -> None:
        super().__init__(final.what)
        self.final = final
        self.wait = wait
        self.backoff = backoff
        self.attempts = attempts


class TooMuchError(ValueError):
    """A text is larger than callflow reads; the message says what and how much."""


class UnkeyedError(ValueError):
    """The record has no usable key; the message says why."""


def internal(error: BaseException, where: str = "") -> CallflowError:
    """Return what to report of an unforeseen exception: its type and place, no text, no traceback.

    The text of an exception can hold any value, even a secret. A MemoryError gives a ShortageError.
    """
    if isinstance(error, MemoryError):
        return ShortageError(
            "out of memory: this process may not have more",
            where=where,
            advice="raise its limit (256 MB suffice for a run); nothing was lost, run again",
        )
    advice = "run it again; if it happens again, report this line to the maintainers"
    return InternalError(f"a bug: {type(error).__name__}{place(error)}", where=where, advice=advice)


def place(error: BaseException) -> str:
    """Return where an exception comes from, as " at file.py:12": the last place in our own code.

    If it passed through none of ours, that is where it was raised.
    """
    here, at, ours = Path(__file__).parent, "", ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        at = f" at {file.name}:{trace.tb_lineno}"
        ours = at if file.is_relative_to(here) else ours
        trace = trace.tb_next
    return ours or at
