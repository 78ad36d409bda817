"""What one table of a provider adds to a view of the schema `callflow`.

A part stands in its provider's declaration. All SQL in it is about one row of its table, `r`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Table


@dataclass(frozen=True, slots=True)
class Lookup:
    """Facts from the rows of another table that belong to `r`.

    `name`   how the part's SQL calls them.
    `table`  the other table, `each` in the SQL of `facts`.
    `on`     its columns → SQL over `r`, and over what the part's `each` makes of it, that they
             equal: all of its key, or the start of it.
    `facts`  name → SQL of an aggregate over the rows of `table` that belong to `r`. Without facts,
             "{name}" in the part's SQL is the condition that there are such rows.
    `where`  without facts: what else is so of such rows, SQL over `each` and `r`.
    """

    name: str
    table: Table
    on: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    where: str = "true"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows that `table` adds to `view`.

    `view`      one of `contract.VIEWS`, or of the `contract.LISTS` that a question reads.
    `columns`   column of the view → SQL over `r`. A column that is missing here is NULL; all parts
                get `provider`, `source`, `valid_from` and `flow_key`.
    `looked_up` the same for columns that depend on other rows: SQL over `r` and the lookup.
    `lookup`    what these columns are looked up in.
    `where`     which rows of `table` count.
    `unless`    a row does not count while one of these finds rows: they say the same of it, better.
    `each`      a FROM item that makes several rows of one row, such as "jsonb_each(r.settings)".
    `compared`  fields that `changes` compares besides those of the view: name → SQL over `r`.
    `members`   a jsonb column of `table` whose members `changes` compares one by one.
    `layout`    members of it that say where a step is drawn; they are no change.
    `content`   a text column with the flow's inside, which `changes` compares step by step. It is
                compared as text only while callflow cannot read it.
    `tracked`   whether `changes` reports what happens to these rows, if it does so for the view.
    `reported`  what finds rows while another list reports changes of the same things: these rows
                are then not in `changes`.
    `flows`     the part of the view flows with the flows to which these rows lead, where another
                stream has them: then `changes` reports which flow a row joins and leaves. None: the
                flow is the record that the row belongs to.
    `changed_at` when the provider changed such a row, as SQL over `r`.
    """

    view: str
    table: Table
    columns: Mapping[str, str]
    looked_up: Mapping[str, str] = field(default_factory=dict)
    lookup: Lookup | None = None
    where: str = "true"
    unless: tuple[Lookup, ...] = ()
    each: str = ""
    compared: Mapping[str, str] = field(default_factory=dict)
    members: str | None = None
    layout: tuple[str, ...] = ()
    content: str | None = None
    tracked: bool = True
    reported: Lookup | None = None
    flows: "Part | None" = None
    changed_at: str = "NULL"


def host_and_path(url: str) -> str:
    """Return the SQL of what a view may show of a URL: host and path, without what may be secret.

    Twilio replaces Liquid ("{{…}}", "{%…%}") in a URL when it is used. "…" stands for a URL whose
    host cannot be made out for sure.
    """
    liquid = r"\{\{[^}]*\}\}|\{%[^%]*%\}"
    host = rf"(?:(?:{liquid}|[^/?#@:\s\[\]\\{{}}])+|\[[0-9a-f:.]+\])"
    port = rf"(?::(?:[0-9]+|{liquid})(?![^?#]*@))?"  # or a user and a password with a slash in it
    start = r"(?:(?:[a-z][a-z0-9+.-]*:)?//|(?=\{))"
    shown = rf"(?i)^{start}(?:(?:{liquid}|[^/?#])*@)?({host}{port}(?:/[^?#]*)?)(?:[?#]|$)"
    return f"CASE WHEN {url} <> '' THEN coalesce(substring({url} FROM '{shown}'), '…') END"
