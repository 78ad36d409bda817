"""callflow: call-flow configuration of cloud contact centres, kept in step in Postgres.

The path of one page:

    cli        a command; reads the configuration (config) and picks streams (units, catalog)
    sync       the spine: one run of one stream (job), from the lease to the watermark
    scan       pages → staging, until it is proven (proof) that all was seen; gone: what was not
    extract    pages of one provider's list, its envelope taken off; http is the seam to the network
    transform  records → rows, as tables defines them; what does not fit stays in `extra`
    load       rows → staging → current tables and history; runs, watermarks, leases
    warehouse  Postgres by URL, or the embedded one (embedded); migrate brings its schema to head

What makes it happen by itself:

    daemon     beats: who leads (lead), what state the streams are in (health), what hangs
    schedule   APScheduler: which source is due, out of its timetable
    dispatch   which run is next; executors: where it happens, threads or Dask
    web        the status page, /readyz, /api/status; metrics, alerts and logs tell the rest

Beside it: api (for orchestrators), sandbox (the providers, emulated), demo, check, query, show.
"""

from importlib.metadata import version

__version__ = version("callflow")
