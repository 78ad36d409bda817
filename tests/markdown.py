"""Comments, types and tables in Markdown, for the documents that `make docs` writes."""

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import make_url

POSTGRES: Any = make_url("postgresql+psycopg://").get_dialect()()


def rows(header: str, lines: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table; `header` has its columns with "|" between them."""
    below = "|".join("---" for _ in header.split("|"))
    escaped = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join([f"| {header} |\n|{below}|\n", *(f"| {line} |\n" for line in escaped)])


def prose(comment: str) -> str:
    """Return a comment in Markdown, the places in the provider's JSON as code."""
    marked = re.sub(r"(?<!\S)\w[\w.]*\[\](\.\w+(\[\])?)*", r"`\g<0>`", comment)
    return re.sub(r"([<*])", r"\\\1", marked)


def type_of(kind: Any) -> str:
    text = str(kind.compile(dialect=POSTGRES)).removesuffix(' COLLATE "C"').lower()
    return text.replace("timestamp with time zone", "timestamptz")
