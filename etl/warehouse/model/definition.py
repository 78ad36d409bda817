"""A view or a function of ours, as a value: its name, what it is made of, and its comments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ViewDefinition:
    """A view.

    `name`    with its schema.
    `columns` name → comment, in the order that a new view gets.
    `query`   returns the query for columns in a given order: those of a view that exists keep
              theirs, and new ones come after them.
    """

    name: str
    comment: str
    columns: Mapping[str, str]
    query: Callable[[Sequence[str]], str]

    @property
    def kind(self) -> str:
        """The word for it in DROP and COMMENT ON."""
        return "VIEW"

    @property
    def identity(self) -> str:
        """What identifies it in DROP and COMMENT ON."""
        return self.name


@dataclass(frozen=True, slots=True)
class FunctionDefinition:
    """A function: its name with its schema, its arguments and its result as SQL, and its body.

    `language` is that of the body: sql, or plpgsql.
    """

    name: str
    comment: str
    arguments: str
    result: str
    body: str
    language: str = "sql"

    @property
    def kind(self) -> str:
        """The word for it in DROP and COMMENT ON."""
        return "FUNCTION"

    @property
    def identity(self) -> str:
        """What identifies it in DROP and COMMENT ON."""
        return self.signature

    @property
    def signature(self) -> str:
        """The name with the types of the arguments, which is what identifies a function."""
        types = [each.split()[-1] for each in self.arguments.split(", ") if each]
        return f"{self.name}({', '.join(types)})"

    @property
    def statement(self) -> str:
        """The statement that makes or replaces the function.

        It has no options but these: with others Postgres does not put the body of a function into
        the query that calls it, and then reads all rows where an index would find one.
        """
        return (
            f"CREATE OR REPLACE FUNCTION {self.name}({self.arguments}) RETURNS {self.result}"
            f" LANGUAGE {self.language} STABLE PARALLEL SAFE AS $function${self.body}$function$"
        )


Definition = ViewDefinition | FunctionDefinition


def literal(content: str) -> str:
    """Return `content` as a literal of SQL."""
    return "'" + content.replace("'", "''") + "'"
