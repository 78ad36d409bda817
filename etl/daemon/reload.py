"""What a configuration that was read again changes in a daemon that runs."""

from dataclasses import replace

from etl.config.settings import Settings, redactor, secrets
from etl.daemon.context import Context, Surroundings
from etl.daemon.metrics import Metrics
from etl.daemon.outside import Notes
from etl.errors import CallflowError
from etl.sync.selection import select

_FIXED = ("executor", "workers", "dask_scheduler", "telemetry")
"""Keys of [daemon] that are read at the start only."""


def reload(context: Context, given: Surroundings, metrics: Metrics, notes: Notes) -> Context | None:
    """Read the configuration again; return the next context, None when it is refused.

    Notes, metrics and the log say what came of it; the log hides the new secrets from then on.
    """
    previous = context.settings
    try:
        loaded = given.load()
    except CallflowError as error:
        metrics.config_refused(True)
        text = f"the new configuration is refused, the previous one stays: {error}"
        if not error.advice:
            text += " → correct it, then send SIGHUP again"
        notes.set("config", text, context.redact)
        return None
    metrics.config_refused(False)
    notes.set("config", None, context.redact)
    settings, fixed = merged(previous, loaded)
    changed = f"a restart is needed for what changed in {', '.join(fixed)}" if fixed else None
    notes.set("restart", changed, context.redact)
    given.relog(settings)
    metrics.forget({(source.name, stream.name) for source, stream in select(settings, [])})
    given.log.info("the configuration was read again", sources=len(settings.sources))
    # Secrets of the previous configuration may still be in use: the warehouse's are.
    redact = redactor(settings).apart(secrets(previous))
    return replace(context, settings=settings, redact=redact)


def merged(previous: Settings, loaded: Settings) -> tuple[Settings, list[str]]:
    """Return `loaded`, except for what takes a restart, and the names of what differs in that."""
    kept = {name: getattr(previous.daemon, name) for name in _FIXED}
    changed = [f"daemon.{name}" for name in _FIXED if kept[name] != getattr(loaded.daemon, name)]
    if previous.warehouse != loaded.warehouse:
        changed.insert(0, "warehouse")
    daemon = loaded.daemon.model_copy(update=kept)
    update = {"warehouse": previous.warehouse, "daemon": daemon}
    return loaded.model_copy(update=update), changed


def rescheduled(previous: Settings, settings: Settings) -> list[str]:
    """Return the names of the sources that are new, or have another schedule or other streams."""
    return [
        name
        for name, source in settings.sources.items()
        if name not in previous.sources
        or previous.sources[name].schedule != source.schedule
        or previous.sources[name].streams != source.streams
    ]
