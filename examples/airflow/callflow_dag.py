"""An Airflow 3 DAG that keeps a callflow warehouse fresh: one mapped task per stream.

When the DAG runs, it reads the streams from callflow's configuration. A task's only argument is the
stream's name: the secrets stay where callflow reads them. See README.md.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

POOL = "callflow"
"""Its slots limit the streams that run at once. A provider's limits are per account: with one slot
two streams never share an account's limit."""

PERMANENT = {"config", "credentials", "database_schema"}
"""Kinds of failure that a person has to fix: another attempt would fail in the same way."""


@dag(
    schedule=timedelta(minutes=15),
    catchup=False,  # one run brings everything up to date, whatever was missed
    max_active_runs=1,
    tags=["callflow"],
    doc_md=__doc__,
)
def callflow() -> None:
    """Ask for the streams, then sync each."""

    # callflow is imported inside the tasks, because Airflow reads this file again and again.
    @task
    def streams() -> list[str]:
        from etl import api

        return api.streams()

    @task(
        pool=POOL,
        map_index_template="{{ task.op_kwargs['name'] }}",
        retries=3,
        retry_delay=timedelta(minutes=1),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(hours=2),
    )
    def sync(name: str) -> list[dict[str, Any]]:
        """Sync a stream; return its runs for XCom: mode, rows changed, watermark."""
        from etl import api

        runs = api.sync(name)
        bad = [run for run in runs if run.status not in ("complete", "not_available")]
        if not bad:
            return [api.summary(run) for run in runs]
        text = "; ".join(f"{run.status}: {run.error}" for run in bad)
        # If the provider asks for a long wait, the next run of the DAG is early enough.
        if any(run.error_kind in PERMANENT or run.retry_at for run in bad):
            raise AirflowFailException(text)
        raise AirflowException(text)  # busy, unavailable, incomplete: Airflow tries again

    sync.expand(name=streams())


callflow()
