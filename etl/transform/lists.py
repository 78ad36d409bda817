"""Which lists of children the records of a table hold, as the tables of the children declare it."""

from dataclasses import dataclass

from sqlalchemy import Table

from etl.warehouse import tables


@dataclass(frozen=True, slots=True)
class ChildList:
    """A list of children in the record's `member`, and their table.

    `texts` says that its items are texts, not objects.
    """

    member: str
    table: Table
    texts: bool

    @property
    def width(self) -> int:
        """The number of its key columns."""
        return len(tables.key_columns(self.table))


def child_lists(record: Table) -> tuple[ChildList, ...]:
    """Find the child tables whose records are a list in a member of `record`'s own."""
    found = []
    for table in record.info["children"]:
        member = table.info["record"].removeprefix(record.info["record"] + ".")
        if member.endswith("[]") and "." not in member:
            texts = any(column.info.get("json") == () for column in table.columns)
            found.append(ChildList(member.removesuffix("[]"), table, texts))
    return tuple(found)
