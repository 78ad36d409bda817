"""callflow.toml and the environment → frozen settings; all problems at once.

`load` merges the file (`read`), the secret files (`secret_files`) and the CALLFLOW_ variables into
plain tables (`draft`), lets pydantic validate them, and reports whatever is wrong as one line per
key (`check`). Messages name keys, files and variables, never values: a value may be a secret, or a
secret in the wrong place.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from etl.config.check import check
from etl.config.draft import Draft
from etl.config.read import read_file, read_variables
from etl.config.secret_files import read_secrets, refuse_exposed
from etl.config.settings import Network, Schedule, Settings, Source
from etl.errors import ConfigError
from etl.providers import PROVIDERS
from etl.providers.declare import Provider


def find(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Return the file that `load` reads: `path`, $CALLFLOW_CONFIG, or ./callflow.toml if any."""
    if path or env.get("CALLFLOW_CONFIG"):
        return path or Path(env["CALLFLOW_CONFIG"])
    default = Path("callflow.toml")
    try:
        return default if default.exists() else None
    except OSError:  # a directory that may not be searched; reading the file will say so
        return default


def load(
    path: Path | None, env: Mapping[str, str], providers: tuple[Provider, ...] = PROVIDERS
) -> Settings:
    """Read the file that `find` names, the secret files and the CALLFLOW_ variables of `env`.

    A variable wins over the file. Without a file there are the variables and the defaults. Having
    no source is not a problem here, see `require_sources`. Of a source with an unknown provider,
    only that and its name are reported.

    Raises ConfigError with one line per problem, all of them; it holds no value of any setting.
    """
    draft = Draft(find(path, env), {provider.name: provider for provider in providers})
    exposed = draft.file is not None and read_file(draft.file, draft)
    read_variables(env, draft)
    inline = read_secrets(draft)
    if exposed:
        refuse_exposed(inline, draft)
    settings = check(draft)
    if draft.problems or settings is None:
        raise draft.error()
    return _merged(settings)


def _merged(settings: Settings) -> Settings:
    """Give each source what it does not say about its schedule and network itself."""
    default = Schedule(every=timedelta(minutes=15), full_every=timedelta(hours=24))
    general = _inherit(settings.schedule, default)
    network = _reach(settings.network, settings.network)
    sources = {
        name: source.model_copy(
            update={
                "schedule": _inherit(source.schedule, general),
                **_reach(source, settings.network),
            }
        )
        for name, source in settings.sources.items()
    }
    return settings.model_copy(
        update={
            "schedule": general,
            "network": settings.network.model_copy(update=network),
            "sources": sources,
        }
    )


def require_sources(settings: Settings) -> None:
    """Raise ConfigError, as `no_sources` gives it, when there is nothing to sync from."""
    if error := no_sources(settings):
        raise error


def no_sources(settings: Settings) -> ConfigError | None:
    """Return the error to report when there is nothing to sync from, None when there is."""
    if settings.sources:
        return None
    if settings.path:
        advice = "uncomment a [sources.…] table there and fill it in"
        return ConfigError("no sources", where=str(settings.path), advice=advice)
    try:
        here = str(Path.cwd())
    except OSError:
        here = "this directory, which was removed"
    return ConfigError(
        f"no configuration: no --config, no $CALLFLOW_CONFIG, no callflow.toml in {here}",
        advice="`callflow init` writes a callflow.toml; `callflow demo` needs none",
    )


def _reach(own: Network | Source, general: Network) -> dict[str, Any]:
    """Return how the network is reached: what `own` says, else `general`; a proxy of "" is none."""
    reach = {
        name: getattr(general, name) if getattr(own, name) is None else getattr(own, name)
        for name in Network.model_fields
    }
    if reach["proxy"] is not None and not reach["proxy"].get_secret_value():
        reach["proxy"] = None
    return reach


def _inherit(own: Schedule, general: Schedule) -> Schedule:
    """Return `general` with what `own` sets; its `every` or `cron` replaces both of `general`."""
    given = {name: getattr(own, name) for name in own.model_fields_set}
    trigger = {"every": None, "cron": None} if given.keys() & {"every", "cron"} else {}
    return general.model_copy(update={**trigger, **given})
