"""A Prefect 3 flow that keeps a callflow warehouse fresh: one task per stream.

When the flow runs, it reads the streams from callflow's configuration. A task's only argument is
the stream's name: the secrets stay where callflow reads them. See README.md.
"""

from datetime import timedelta
from typing import Any

from prefect import flow, task
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from etl import api

PERMANENT = {"config", "credentials", "database_schema"}
"""Kinds of failure that a person has to fix: another attempt would fail in the same way."""


class PermanentError(Exception):
    """A failure after which the task is not tried again."""


def is_passing(task: Any, run: Any, state: State[Any]) -> bool:
    """Return whether another attempt may succeed."""
    return not isinstance(state.result(raise_on_failure=False), PermanentError)


@task(
    task_run_name="{name}",
    retries=3,
    retry_delay_seconds=[60, 120, 240],
    retry_condition_fn=is_passing,
    timeout_seconds=timedelta(hours=2).total_seconds(),
)
def sync(name: str) -> list[dict[str, Any]]:
    """Sync a stream; return its runs: mode, rows changed, watermark."""
    runs = api.sync(name)
    bad = [run for run in runs if run.status not in ("complete", "not_available")]
    if not bad:
        return [api.summary(run) for run in runs]
    text = "; ".join(f"{run.status}: {run.error}" for run in bad)
    # If the provider asks for a long wait, the next run of the flow is early enough.
    if any(run.error_kind in PERMANENT or run.retry_at for run in bad):
        raise PermanentError(text)
    raise RuntimeError(text)  # busy, unavailable, incomplete: Prefect tries again


# A provider's limits are per account: with one worker two streams never share an account's limit.
@flow(name="callflow", task_runner=ThreadPoolTaskRunner(max_workers=1))
def callflow() -> list[State[Any]]:
    """Sync every stream; fail if one failed."""
    tasks = [sync.submit(name) for name in api.streams()]
    for each in tasks:
        each.wait()
    return [each.state for each in tasks]


if __name__ == "__main__":
    callflow.serve(name="callflow", interval=timedelta(minutes=15), limit=1)
