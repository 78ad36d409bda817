"""The streams that a command names, and their runs: accounts side by side, streams in turn."""

import difflib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from queue import SimpleQueue

from etl.config.settings import Settings, Source
from etl.errors import ConfigError
from etl.load.runs import Run
from etl.providers import PROVIDERS, named
from etl.providers.declare import Provider, Stream, streams_of

Unit = tuple[Source, Stream]


def select(
    settings: Settings, names: Sequence[str], providers: tuple[Provider, ...] = PROVIDERS
) -> list[Unit]:
    """Return the streams that `names` name, in the order of the configuration.

    A name is "source" or "source.stream"; without names all streams are returned. Raises
    ConfigError, which lists every unknown name and suggests similar ones.
    """
    units = [
        (source, stream)
        for source in settings.sources.values()
        for stream in streams_of(source, named(source.provider, providers))
    ]
    every = {name_of(unit): unit for unit in units}
    wanted = {name for name in every if not names or {name, name.split(".")[0]} & set(names)}
    known = [*settings.sources, *every]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            "; ".join(f"there is no source or stream {name!r}" for name in unknown),
            where=str(settings.path or "environment"),
            advice=perhaps(unknown, known),
        )
    return [unit for name, unit in every.items() if name in wanted]


def perhaps(unknown: Iterable[str], known: Sequence[str]) -> str:
    """Return advice about names that are not `known`: similar ones, else all."""
    close = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
    if close:
        return f"did you mean {' '.join(close)}?"
    return f"choose from: {', '.join(known)}" if known else "add a source to the configuration"


def name_of(unit: Unit) -> str:
    """Return `source.stream`."""
    source, stream = unit
    return f"{source.name}.{stream.name}"


def name_of_scope(source: str, scope: str) -> str:
    """Return `source/scope`, such as alibaba_sh/ccc-test, as `callflow forget` takes it."""
    return f"{source}/{scope}"


def account(source: Source) -> str:
    """Return whose requests the provider's limits count: its API's host and the account."""
    return f"{host(source)} {getattr(source, source.account)}"


def host(source: Source) -> str:
    """Return host and port of the source's API."""
    return urllib.parse.urlsplit(source.base_url).netloc


def run_all(
    units: Sequence[Unit], run_unit: Callable[[Unit], Run], executor: Executor
) -> Iterator[Run]:
    """Run the units and yield each run as it ends; raise what `run_unit` raises when all ended.

    Accounts run side by side, the streams of one in turn: a provider's limits are per account.
    """
    accounts: dict[str, list[Unit]] = {}
    for unit in units:
        accounts.setdefault(account(unit[0]), []).append(unit)

    ended: SimpleQueue[Run | None] = SimpleQueue()

    def run_account(group: Sequence[Unit]) -> None:
        try:
            for unit in group:
                ended.put(run_unit(unit))
        finally:
            ended.put(None)

    futures = [executor.submit(run_account, each) for each in accounts.values()]
    for _ in futures:
        yield from iter(ended.get, None)
    for future in futures:
        future.result()


def exit_code(runs: Mapping[str, Run] | Iterable[Run]) -> int:
    """Return 0 if all are complete, 1 if one failed or is incomplete, 75 if only one was busy.

    One that is not available, or has ended, counts as complete.
    """
    states = {run.status for run in (runs.values() if isinstance(runs, Mapping) else runs)}
    if states & {"failed", "incomplete"}:
        return 1
    return 75 if "busy" in states else 0
