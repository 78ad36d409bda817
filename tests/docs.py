"""`python -m tests.docs` (`make docs`): write what the documents derive from the code.

The table of faults is derived from the marks of the tests, the Docker demo's configuration from the
sandbox's emulators, the questions from their views, everything else from `PROVIDERS` and the
definitions of the tables.
`tests/test_docs.py` holds each part up to date.
"""

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic.fields import FieldInfo
from sqlalchemy import Table

from etl.config.settings import Source
from etl.providers import PROVIDERS
from etl.providers.declare import Provider
from etl.sandbox.server import EMULATORS, PORTS, Emulated, toml
from etl.warehouse import tables
from etl.warehouse.model.questions import QUESTIONS
from etl.warehouse.names import SCHEMAS
from tests.dbt_sources import sources
from tests.faults.table import found, table
from tests.markdown import prose, rows, type_of
from tests.model_docs import dictionary as views
from tests.model_docs import mermaid
from tests.model_svg import svg
from tests.superset_columns import DATASETS, columns_for, datasets

ROOT = Path(__file__).resolve().parents[1]

Providers = tuple[Provider, ...]

NO_ROWS = {
    "broken_references": "every flow that is called there exists.",
}
"""Why a question has no answer in the data of `callflow demo`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a document that is written from the code: the lines between two others.

    `wraps` is put before and after what `write` returns.
    """

    file: str
    begin: str
    end: str
    write: Callable[[Providers], str]
    wraps: tuple[str, str] = ("\n", "\n")

    def written(self, text: str, providers: Providers = PROVIDERS) -> str:
        """Return the document `text` with this part up to date.

        Raises ValueError where it has no place for it.
        """
        before, begin, rest = text.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end:
            raise ValueError(f"{self.file} has no {self.begin} … {self.end}")
        first, last = self.wraps
        return f"{before}{begin}\n{first}{self.write(providers)}{last}{end}{after}"


def markdown(file: str, name: str, write: Callable[[Providers], str]) -> Part:
    begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- {name}: end -->"
    return Part(file, begin, end, write)


def faults(providers: Providers) -> str:
    return table(found())


def needs(providers: Providers) -> str:
    """Return what an administrator has to find or set up for each provider."""
    return rows(
        "provider | credentials | where they are | rights",
        ((each.title, each.credentials, each.setup.rstrip("."), each.rights) for each in providers),
    )


def default(provider: Provider, name: str) -> Any:
    """Return the default of a source's key where all other keys have theirs."""
    fields = provider.settings.model_fields
    others = {"base_url": fields["base_url"].default}
    return fields[name].get_default(call_default_factory=True, validated_data=others)


def hosts(providers: Providers) -> str:
    """Return the hosts that a firewall has to let callflow reach."""

    def reached(provider: Provider) -> str:
        urls = [
            str(default(provider, name))
            for name in provider.settings.model_fields
            if name.endswith("_url")
        ]
        return ", ".join(f"`{host}`" for host in dict.fromkeys(urlsplit(u).hostname for u in urls))

    return rows("provider | hosts to allow", ((each.title, reached(each)) for each in providers))


def schemas(providers: Providers) -> str:
    """Return the statements that make the schemas, the providers' first."""
    names = [*(each.name for each in providers), *tables.SCHEMAS]
    return "".join(f"CREATE SCHEMA {name} AUTHORIZATION loader;\n" for name in names)


def own_keys(provider: Provider) -> dict[str, FieldInfo]:
    """Return the keys of a source that only this provider has, in their order."""
    fields = provider.settings.model_fields
    return {name: fields[name] for name in fields if name not in Source.model_fields}


def keys(providers: Providers) -> str:
    """Return the keys of each provider's sources, with their defaults."""

    def shown(provider: Provider, name: str, info: FieldInfo) -> str:
        given = info.is_required() or default(provider, name) is None
        return f"`{name}`" if given else f"`{name}` (`{default(provider, name)}`)"

    return rows(
        "`provider` | own keys (default) | `base_url` | `requests_per_second`",
        (
            (
                f"`{each.name}`",
                ", ".join(shown(each, *key) for key in own_keys(each).items()),
                f"`{each.settings.model_fields['base_url'].default}`",
                f"{each.settings.model_fields['requests_per_second'].default:g}",
            )
            for each in providers
        ),
    )


def first_sentence(each: Table) -> str:
    """Return a table's comment without its part about the JSON."""
    whence = tables.whence(each.info["record"], derived=each.info["derived"])
    return str(each.comment).removesuffix(f" {whence}")


def streams(providers: Providers) -> str:
    """Return the streams, their tables, and the default for records that are not listed."""
    found = []
    for stream in (stream for provider in providers for stream in provider.streams):
        first, *children = [(f"`{each.fullname}`", first_sentence(each)) for each in stream.tables]
        found.append((f"`{stream.name}`", *first, f"`{stream.on_absent}`"))
        found += [("", *child, "") for child in children]
    return rows("stream | table | holds | `on_absent`", found)


def citus(providers: Providers) -> str:
    """Return the statements that distribute the providers' tables, their history, and the log."""
    current = [each for p in providers for stream in p.streams for each in stream.tables]
    names = [e.fullname for e in (*current, *map(tables.history, current), tables.changes)]
    near = ["none"] + [names[0]] * (len(names) - 1)
    lines = (
        f"SELECT create_distributed_table('{name}', 'source', colocate_with => '{other}');"
        for name, other in zip(names, near, strict=True)
    )
    return "\n".join(["```sql citus-data", *lines, "```\n"])


def dictionary(providers: Providers) -> str:
    """Return every table that a person reads, with its columns."""
    found = []
    for provider in providers:
        found += [f"## {provider.title}\n", f"{provider.comment}\n"]
        for stream in provider.streams:
            found += [described(each) for each in stream.tables]
    found += ["## Bookkeeping\n", f"{SCHEMAS['etl']}\n"]
    own = [each for each in tables.metadata.sorted_tables if each.schema == "etl"]
    found += [described(each) for each in sorted(own, key=lambda each: each.name)]
    return "\n".join(found)


def described(each: Table) -> str:
    key = ", ".join(f"`{column.name}`" for column in each.primary_key)
    columns = rows(
        "column | type | comment",
        (
            (f"`{column.name}`", type_of(column.type), prose(str(column.comment)))
            for column in each.columns
        ),
    )
    return f"### {each.fullname}\n\n{prose(str(each.comment))} Key: {key}.\n\n{columns}"


def asked(providers: Providers) -> str:
    """Return the questions that have a view, for a reader who looks for one."""
    return rows("question | view", ((each.asked, f"`callflow.{each.name}`") for each in QUESTIONS))


def questions(providers: Providers) -> str:
    """Return the questions with their views, each with a query to copy."""
    return "\n".join(
        f"### {each.asked}\n\n`callflow.{each.name}`. {each.caveat}\n\n"
        f"```sql\n{textwrap.dedent(each.ready).strip()};\n```\n"
        + (f"\nEmpty in the sandbox: {NO_ROWS[each.name]}\n" if each.name in NO_ROWS else "")
        for each in QUESTIONS
    )


def examples(providers: Providers) -> str:
    """Return a commented source of each provider, under what an administrator must know."""
    return "\n".join("".join(f"{line}\n" for line in example(each)) for each in providers)


def example(provider: Provider) -> Iterator[str]:
    rights = provider.rights.replace("`", "")
    prose = f"{provider.title}. {provider.setup} Rights: {rights}."
    yield from (f"# {line}" for line in textwrap.wrap(prose, 97, break_on_hyphens=False))
    yield "#"
    for line in provider.example.strip().split("\n"):
        yield f"# {line.removeprefix('# ')}".rstrip()


def emulators(providers: Providers) -> list[Emulated]:
    """Return the providers' emulators at the default ports of `callflow sandbox`."""
    found = []
    for emulator, port in zip([each() for each in EMULATORS], PORTS, strict=True):
        emulator.url = f"http://127.0.0.1:{port}"
        if emulator.name in {each.name for each in providers}:
            found.append(emulator)
    return found


def demo_sources(providers: Providers) -> str:
    """Return the sources of the Docker demo, without their secrets."""
    return "\n".join(toml(each, {}) for each in emulators(providers))


def demo_secrets(providers: Providers) -> str:
    """Return the secrets of those sources, as variables of the environment."""
    return "".join(
        f"CALLFLOW_SOURCES__{each.name}_DEMO__{key}".upper() + f"={secret}\n"
        for each in emulators(providers)
        for key, secret in each.secrets().items()
    )


PARTS = (
    markdown("docs/reliability.md", "faults", faults),
    markdown("README.md", "needs", needs),
    markdown("README.md", "keys", keys),
    markdown("README.md", "streams", streams),
    markdown("README.md", "questions", asked),
    markdown("docs/questions.md", "questions", questions),
    markdown("docs/scale.md", "citus", citus),
    markdown("docs/network.md", "hosts", hosts),
    Part(
        "docs/deploy.md",
        "\\connect warehouse",
        "```\n\nThen, with `url",
        schemas,
        ("", ""),
    ),
    markdown("docs/tables.md", "views", views),
    markdown("docs/tables.md", "tables", dictionary),
    markdown("docs/model.md", "diagrams", mermaid),
    markdown("docs/model.svg", "model", svg),
    Part(
        "etl/config/callflow.example.toml",
        "# --- Any number of sources, even several of one provider:",
        "# --- Any source can also have these keys, in its table above.",
        examples,
        ("\n", "\n\n"),
    ),
    Part(
        "examples/dbt/models/sources.yml",
        "# --- The sources, written by `make docs`:",
        "# --- The end of the sources.",
        sources,
    ),
    *(
        Part(
            f"{DATASETS}/{name}.yaml",
            "# --- The columns, written by `make docs`:",
            "# --- The end of the columns.",
            columns_for(name),
        )
        for name in datasets()
    ),
    Part(
        "examples/demo/sandbox.toml",
        "# --- The sources, written by `make docs`:",
        "# --- The end of the sources.",
        demo_sources,
    ),
    Part(
        "examples/demo/sandbox.env",
        "# --- The secrets, written by `make docs`:",
        "# --- The end of the secrets.",
        demo_secrets,
    ),
)


if __name__ == "__main__":
    for file in dict.fromkeys(part.file for part in PARTS):
        text = now = (ROOT / file).read_text(encoding="utf-8")
        for part in PARTS:
            now = part.written(now) if part.file == file else now
        (ROOT / file).write_text(now, encoding="utf-8")
        sys.stdout.write(f"{file}: {'unchanged' if now == text else 'written'}\n")
