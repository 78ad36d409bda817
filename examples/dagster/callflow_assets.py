"""Dagster assets that keep a callflow warehouse fresh: one per stream, every 15 minutes.

Dagster reads the streams from callflow's configuration when it loads this file. An asset knows only
the stream's name: the secrets stay where callflow reads them. See README.md.
"""

import dagster as dg

from etl import api

POOL = "callflow"
"""Its limit is how many streams run at once. A provider's limits are per account: with a limit of 1
two streams never share an account's limit."""

PERMANENT = {"config", "credentials", "database_schema"}
"""Kinds of failure that a person has to fix: another attempt would fail in the same way."""


def asset_of(name: str, delay: float = 60) -> dg.AssetsDefinition:
    """Return the asset of a stream, such as "zoom_eu.flows"; `delay` seconds before a retry."""

    @dg.asset(
        key=["callflow", *name.split(".")],
        group_name="callflow",
        kinds={"postgres"},
        pool=POOL,
        retry_policy=dg.RetryPolicy(max_retries=3, delay=delay, backoff=dg.Backoff.EXPONENTIAL),
        tags={"dagster/max_runtime": "7200"},
    )
    def stream() -> dg.MaterializeResult:
        """Sync the stream; keep what changed as the asset's metadata."""
        (run,) = api.sync(name)
        if run.status in ("complete", "not_available"):
            found = api.summary(run).items()
            return dg.MaterializeResult(metadata={key: value for key, value in found if value})
        # If the provider asks for a long wait, the next run of the job is early enough.
        permanent = run.error_kind in PERMANENT or run.retry_at is not None
        raise dg.Failure(f"{run.status}: {run.error}", allow_retries=not permanent)

    return stream


job = dg.define_asset_job("callflow", dg.AssetSelection.groups("callflow"))
defs = dg.Definitions(
    assets=[asset_of(name) for name in api.streams()],
    jobs=[job],
    schedules=[dg.ScheduleDefinition(job=job, cron_schedule="*/15 * * * *")],
)
