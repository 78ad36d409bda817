"""What the warehouse answers about streams and runs, made by hand."""

from datetime import timedelta
from typing import Any

from etl.status.health import Overview
from etl.status.missing import Missing
from etl.status.stories import Rejected, RunStory, StreamStory
from tests.web import calls, fleet

MISSING = [
    Missing(f"FO{number:030x}", name, fleet.ago(hours=2), None)
    for number, name in enumerate(("Billing", "Returns", "", "Night line"))
]
REJECTS = [Rejected("no sid, so it has no key", 3, fleet.ago(minutes=40))]


def of_stream(view: Overview, pair: tuple[str, str]) -> StreamStory:
    """Return thirty plausible runs of a stream of `view`; one that is incomplete misses four."""
    runs = fleet.last_runs(view).get(pair, ())
    lacks = any((s.source, s.stream) == pair and s.state == "incomplete" for s in view.streams)
    changes = calls.of_source(pair[0]).changes if runs else ()
    if not lacks:
        return StreamStory(runs, changes=changes)
    return StreamStory(runs, MISSING, 123, REJECTS, changes)


def of_run(view: Overview, run_id: str) -> RunStory | None:
    """Return the run with that id, of a stream of `view`."""
    for runs in fleet.last_runs(view).values():
        for run in runs:
            if run.run_id == run_id:
                seen = run.started_at + timedelta(seconds=1)
                changed = run.inserted + run.updated + run.deleted
                made: dict[str, Any] = {
                    "observed_at": seen,
                    "modified_at": seen - timedelta(minutes=4),
                }
                changes = [calls.change(source=run.source, **made)] if changed else []
                return RunStory(run, changes, REJECTS if run.rejected else ())
    return None
