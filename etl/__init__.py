"""callflow: call-flow configuration of cloud contact centres, kept in step in Postgres.

The path of one page:

    commands   a command reads the configuration (config) and selects streams (providers)
    sync       one run of one stream, from the lease to the watermark: `run` is the spine
    extract    pages of one provider's list, the envelope removed; `http` is the seam to the network
    transform  records → rows, as their tables define them; what does not fit stays in `extra`
    load       rows → staging → current tables and history; runs, watermarks, leases
    warehouse  Postgres by URL, or the embedded server; its tables, migrations, views and roles

Around it:

    daemon     runs `sync` on a schedule: who leads, what is due, where it runs, what hangs;
               logs, metrics, alerts and the status page report on it
    status     the state of sources and streams, and how a person sees it
    api        the same for orchestrators, from Python
    sandbox    the providers, emulated; the pipeline and the sandbox know nothing of each other
"""
