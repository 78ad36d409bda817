"""What becomes of records that a proven full scan did not list, by the provider's answers."""

from typing import get_args, get_type_hints

import pytest

from etl.extract.page import Lookup
from etl.sync.plan import Plan
from etl.sync.proof import Proof, Scan, Scope
from etl.sync.scan import Reading
from etl.sync.unlisted import FATES, Known, Verdict, settled, weigh

STATES = get_args(get_type_hints(Lookup)["state"])


def test_every_look_up_has_a_verdict_and_only_a_definite_one_deletes() -> None:
    assert set(FATES) == set(STATES)
    assert [state for state in STATES if FATES[state][2] == "delete"] == ["gone"]
    twice_unlisted = {state for state in STATES if FATES[state][0] == "delete"}
    assert twice_unlisted == {"gone", "unasked"}


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("before", [set(), {("a",)}])
def test_a_record_that_exists_but_may_not_be_read_is_kept(
    counted: bool, before: set[tuple[str, ...]]
) -> None:
    """It also keeps the others: the run is incomplete, and a later run deletes those."""
    answers = [
        (("a",), Lookup("unreadable", reason="HTTP 403")),
        (("b",), Lookup("gone")),
    ]
    verdict = weigh(answers, before, counted=counted, where="demo.flows")
    assert not verdict.deleted
    assert verdict.incomplete_because is not None
    assert "(HTTP 403)" in str(verdict.incomplete_because)


def test_a_scope_that_a_run_for_changes_reads_whole_settles_only_what_it_lists() -> None:
    unlisted = [("whole", "gone"), ("whole", "back"), ("changes", "there")]
    known = Known({"whole": set(unlisted[:2]), "changes": set(unlisted[2:])}, unlisted)
    scopes = {"whole": Scope(keys={("whole", "back")}), "changes": Scope(partial=True)}
    scan = Scan(scopes=scopes)
    over = settled(known, Reading([scan], Proof()), Plan("incremental", ""), Verdict())
    assert over == unlisted[1:]
