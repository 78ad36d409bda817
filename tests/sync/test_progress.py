"""What a run reports while it works: each record counted once, never back, never past the end."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import pytest

from etl.sandbox.server import Sandbox
from etl.sync.job import Reached
from tests.sync.conftest import Starter


def phases(found: Sequence[Reached]) -> list[tuple[str, int]]:
    """Return the phases in their order; whatever is the same must only grow."""
    for one, other in pairwise(found):
        if (one.phase, one.scan) == (other.phase, other.scan):
            assert one.records <= other.records
    assert all(each.total is None or each.records <= each.total for each in found)
    return [key for key, _ in groupby((each.phase, each.scan) for each in found)]


@pytest.mark.parametrize(
    ("name", "expected", "counts"),
    [
        # Several pages are read twice before they are proven.
        ("zoom_demo.flows",
         [("reading", 1), ("reading", 2), ("proving", 1), ("merging", 1)],
         [(100, 230), (200, 230), (230, 230)] * 2),
        # Of two instances the second one's length is not known before it has started.
        ("alibaba_demo.contact_flows", [("reading", 1), ("proving", 1), ("merging", 1)], None),
        ("twilio_demo.studio_flows",
         [("reading", 1), ("proving", 1), ("completing", 1), ("merging", 1)], None),
        ("twilio_demo.channels", [("reading", 1)], [(1000, None), (2000, None), (2300, None)]),
    ],
)  # fmt: skip
def test_a_run_reports_its_phases_and_counts_each_record_once(
    sync: Starter,
    full_sandbox: Sandbox,
    name: str,
    expected: list[tuple[str, int]],
    counts: list[tuple[int, int | None]] | None,
) -> None:
    found: list[Reached] = []
    run = sync(full_sandbox)(name, on_progress=found.append)
    assert run.status == "complete"
    assert phases(found) == expected
    read = [(each.records, each.total) for each in found if each.phase == "reading"]
    assert counts in (None, read)
    assert read[-1][0] == run.records
    if name.startswith("alibaba"):
        lengths = [total for _, total in read]
        assert lengths[0] is None
        assert set(lengths[lengths.index(run.records) :]) == {run.records}
    if expected[-1][0] == "merging":
        assert found[-1] == Reached("merging", run.records)


def test_how_many_changes_there_are_is_not_known_before_they_are_read(
    sync: Starter, full_sandbox: Sandbox
) -> None:
    run = sync(full_sandbox)
    run("alibaba_demo.contact_flows")
    found: list[Reached] = []
    assert run("alibaba_demo.contact_flows", on_progress=found.append).mode == "incremental"
    assert {each.total for each in found} == {None}
