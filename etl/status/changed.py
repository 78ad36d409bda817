"""Rows of callflow.changes in words, for the terminal and for the pages of the daemon. Pure.

Every value in them is text from outside: it is cut, and stays on one line.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from etl.status.drawing import plain, short
from etl.status.flows import Row

_ENTITIES = {
    "flow": "",
    "flow_version": "version ",
    "entry_point": "entry point ",
    "step": "step ",
    "step_link": "step link ",
}
_CHANGES = {"created": "is new", "deleted": "is gone", "restored": "is there again"}


def seen_at_once(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield the changes that callflow saw of one flow at one moment, in the order of `rows`."""
    keys = ("observed_at", "source", "provider", "account_id", "flow_id")
    for _, group in groupby(rows, key=lambda row: tuple(row[key] for key in keys)):
        yield list(group)


def minute(time: datetime) -> str:
    """Return a time to the minute: "2026-03-14 03:12"."""
    return f"{time:%Y-%m-%d %H:%M}"


def by_editor(
    rows: Sequence[Row], say: Callable[[datetime], str] = minute
) -> Iterator[tuple[str, list[Row]]]:
    """Yield who made changes and when, "" if neither is known, and the rows of these changes.

    `say` puts a time into words.
    """
    for editor, group in groupby(rows, key=lambda row: row["modified_by"]):
        made = list(group)
        yield _by(editor, made, say), made


def _by(editor: str | None, rows: Sequence[Row], say: Callable[[datetime], str]) -> str:
    made = max((row["modified_at"] for row in rows if row["modified_at"]), default=None)
    said = [f"by {short(editor, 60)}" if editor else "", f"made {say(made)}" if made else ""]
    return ", ".join(filter(None, said))


def change_line(row: Row) -> str:
    """Return a change in words, such as: step Greeting: name: "Hello" → "Hi"; not as markup."""
    what, said = change_parts(row)
    return f"{what}{': ' if what and row['change'] == 'updated' else ' '}{said}".strip()


def change_parts(row: Row, most: int = 60) -> tuple[str, str]:
    """Return what was changed, "" for the flow that was saved, and how: `change_line` in two parts.

    A value is cut to `most` characters.
    """
    entity = row["entity"]
    what = _ENTITIES.get(entity, f"{short(entity, 20)} ")
    if entity != "flow":
        # Steps share the names of their ways out; the id says of which step it is one.
        name = None if entity == "step_link" else row["entity_name"]
        what += short(name or row["entity_id"] or "", 60)
    if row["change"] != "updated":
        said = _CHANGES.get(row["change"], short(row["change"], 20))
        return what or "the flow", said
    if row["field"] == "saved":
        return what, "saved; the data do not say what was changed"
    field = short(row["field"] or "", 60)
    pair = _pair(row["old_value"], row["new_value"], most)
    return f"{what}: {field}" if what else field, pair


def _pair(old: str | None, new: str | None, most: int) -> str:
    """Return two values, cut around the first place where they differ."""
    before, after = (None if each is None else plain(each) for each in (old, new))
    if before is not None and after is not None:
        same = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
                    min(len(before), len(after)))  # fmt: skip
        if max(len(before), len(after)) > most and same > most // 2:
            before, after = f"…{before[same - 20 :]}", f"…{after[same - 20 :]}"
    return f"{_value(before, most)} → {_value(after, most)}"


def _value(text: str | None, most: int) -> str:
    return "nothing" if text is None else f'"{short(text, most)}"'
