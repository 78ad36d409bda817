"""Records that a proven scan did not list: have they gone?

Only the provider can say. Where it answers for one record, it is asked for each; where it does not,
a second proven run has to miss it too.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from etl.errors import CallflowError, CredentialsError, IncompleteError, ProviderError
from etl.extract.page import Lookup, Page
from etl.load import merge, stage
from etl.providers.declare import on_absent, zone_of
from etl.sync.job import Work
from etl.sync.prefetch import ahead
from etl.sync.proof import brake
from etl.warehouse.tables import Key


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of the records that were not listed.

    `gone` leave their table; `noted` do so if the next full run misses them too; all others stay.
    `doubt` is why the run is not complete.
    """

    gone: Sequence[Key] = ()
    noted: Sequence[Key] = ()
    doubt: CallflowError | None = None


def decide(work: Work, missed: Collection[Key]) -> Fate:
    """The fate of the current records that are not staged, after a proven full scan.

    `missed` are those that a former run did not list. A record that exists although it was not
    listed is staged as the provider gives it. Where the API counts its list, the proof rests on the
    count and not only on the list's end: then two runs can do without the provider's word.
    """
    job, stream, scan = work.job, work.job.stream, work.scans[-1]
    if on_absent(job.settings, stream) == "keep":
        return Fate()
    missing = _absent(work)
    if not missing:
        return Fate()
    empty = [name for name, scope in scan.scopes.items() if not scope.received]
    refused = brake(missing, work.rows, empty, stream.scope is not None, job.name)
    if refused is not None and not job.accept_deletes:
        return Fate(noted=missing if stream.counted else (), doubt=refused)

    answers = list(ahead(_look_up(work, missing), depth=1, tick=work.tick))
    by = {state: [key for key, answer in answers if answer.state == state] for state in _STATES}
    found = [answer.record for _, answer in answers if answer.state == "found"]
    if found:
        _stage(work, found)
    gone, noted, open_ = by["gone"], [], by["undecided"]
    if stream.counted:
        gone += [key for key in by["unasked"] if key in missed]
        noted += [key for key in by["unasked"] if key not in missed]
    else:
        open_ += by["unasked"]
    if open_:
        return Fate(noted=noted, doubt=_undecided(answers, job.name))
    return Fate(gone, noted)


_STATES = ("gone", "found", "unasked", "undecided")


def _undecided(answers: Sequence[tuple[Key, Lookup]], where: str) -> IncompleteError:
    left = [answer for _, answer in answers if answer.state in ("unasked", "undecided")]
    return IncompleteError(
        f"{len(left)} records are no longer listed, but nobody can say that they are gone "
        f"({left[0].reason}); they are kept",
        kind="undecided",
        where=where,
        advice="let these credentials read single records, or wait for the next run",
    )


def _absent(work: Work) -> list[Key]:
    scopes = list(work.scans[-1].scopes) if work.job.stream.scope else []
    source, pair = work.run.source, work.pairs[0]
    return work.read(lambda connection: merge.absent(connection, source, pair, scopes))


def _look_up(work: Work, keys: Sequence[Key]) -> Iterator[tuple[Key, Lookup]]:
    """What the provider says of each; once it refuses to be asked, it is asked no more.

    All of it may take as long as a scan.
    """
    look_up, refused = work.job.stream.look_up, None
    work.http.allow(work.job.settings.scan_deadline.total_seconds())
    if look_up is None:
        refused = Lookup("unasked", reason="the API cannot be asked for one record")
    for key in keys:
        if look_up is None or refused is not None:
            yield key, refused or Lookup("unasked")
            continue
        try:
            yield key, look_up(work.http, key)
        except CredentialsError as error:
            refused = Lookup("unasked", reason=str(error))
            yield key, refused
        except ProviderError as error:
            yield key, Lookup("undecided", reason=str(error))


def _stage(work: Work, records: list[object]) -> None:
    rows = work.job.stream.transform(
        Page(records, 1, zone=zone_of(work.job.settings)), work.ordinal
    )
    work.ordinal += len(records)

    def do(connection: Connection) -> None:
        for pair in work.pairs:
            stage.copy(connection, pair.stage, rows.tables[pair.current.fullname])
        work.settled = stage.settle(connection, work.pairs, {}, work.job.stream.scope)

    work.write(do)
