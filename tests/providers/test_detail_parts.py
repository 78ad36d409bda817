"""Records with numbered parts that never change: each part is fetched once, one of them is shown.

Books have editions; the list says which is the newest, a request for the book which is for sale.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.schema import CreateSchema

from etl.errors import UnavailableError
from etl.extract.http import Http
from etl.extract.page import Page, ScanRequest, Wanted
from etl.providers.declare import Detail, Parts, Stream
from etl.sync.job import Job
from etl.sync.run import run_stream
from etl.transform.rows import Rows
from etl.transform.tree import tree
from etl.warehouse import views
from etl.warehouse.tables import INT, KEY, TEXT, current, family, field, given
from tests.postgres import ask
from tests.providers.toy import authenticate, probe

METADATA = MetaData()

books = current(
    "library.books",
    "Books.",
    field("book", KEY, "Id."),
    field("title", TEXT, "Title."),
    field("newest", INT, "Newest edition."),
    field("sold", INT, "Edition that is for sale."),
    keys=1,
    record="books[]",
    metadata=METADATA,
)
editions = current(
    "library.editions",
    "Editions.",
    given("book", KEY, "The book."),
    field("number", INT, "Number."),
    field("printer", TEXT, "Who printed it."),
    field("content", TEXT, "Its lines."),
    keys=2,
    record="books[].editions[]",
    parent=books,
    metadata=METADATA,
)
lines = current(
    "library.lines",
    "Lines of an edition.",
    given("book", KEY, "The book."),
    given("number", INT, "The edition."),
    given("line", KEY, "The line."),
    keys=3,
    record="books[].editions[].content",
    parent=editions,
    derived=True,
    metadata=METADATA,
)
sold_lines = current(
    "library.sold_lines",
    "Lines of the edition that is for sale.",
    given("book", KEY, "The book."),
    given("line", KEY, "The line."),
    given("title", TEXT, "Title of the book."),
    keys=2,
    record="books[].editions[].content",
    parent=books,
    derived=True,
    metadata=METADATA,
)


def read_lines(record: dict[str, Any], ordinal: int, key: Any, what: str, rows: Rows) -> bool:
    for edition in record.get("editions", ()):
        rows.tables["library.lines"] += [
            (ordinal, *key, edition["number"], line, None)
            for line in (edition["content"] or "").split()
        ]
    return True


class Library:
    """Books by id; a book that is `closed` cannot be fetched. `asked` is (id, known editions)."""

    def __init__(self) -> None:
        self.books: dict[str, dict[str, Any]] = {}
        self.closed: set[str] = set()
        self.asked: list[tuple[str, list[int]]] = []

    def add(self, book: str, *contents: str, sold: int | None) -> None:
        found = [{"number": n, "printer": None, "content": c} for n, c in enumerate(contents, 1)]
        self.books[book] = {"book": book, "title": f"Of {book}", "newest": len(found),
                            "sold": sold, "editions": found}  # fmt: skip

    def pages(self, http: Http, ask: ScanRequest) -> Iterator[Page]:
        shown = ("book", "title", "newest")
        yield Page([{name: each[name] for name in shown} for each in self.books.values()], 1)

    def fetch(self, http: Http, wanted: Wanted) -> Any:
        """Return the newest edition and the one for sale whole, unless they are known."""
        (book,), known = wanted.key, sorted(wanted.known)
        self.asked.append((book, known))
        if book in self.closed:
            raise UnavailableError("closed")
        found = deepcopy(self.books[book])
        assert wanted.listed == {"newest": found["newest"]}
        for edition in found["editions"]:
            if edition["number"] in known or edition["number"] not in (
                found["newest"],
                found["sold"],
            ):
                edition["content"] = None
            else:
                edition["printer"] = "Printer"
        return {"book": book, "sold": found["sold"], "editions": found["editions"]}


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def reading(library: Library, job: Job) -> Job:
    with job.engine.begin() as connection:
        connection.execute(CreateSchema("library"))
        METADATA.create_all(connection)
        views.create(connection, views.of_tables(family(books)))
    stream = Stream(
        name="books",
        tables=family(books),
        auth=authenticate,
        pages=library.pages,
        transform=tree(books, noun="book", inside=read_lines),
        look_up=None,
        probe=probe,
        counted=False,
        detail=Detail(
            library.fetch,
            fingerprint=("newest",),
            fills=("sold",),
            parts=Parts(editions, "content", "sold", shown=((lines, sold_lines),)),
        ),
    )
    return replace(job, stream=stream)


def stored(url: str) -> dict[str, list[tuple[Any, ...]]]:
    queries = {
        "books": "SELECT book, title, newest, sold FROM library.books ORDER BY 1",
        "editions": "SELECT book, number, printer, content FROM library.editions ORDER BY 1, 2",
        "lines": "SELECT book, number, line FROM library.lines ORDER BY 1, 2, 3",
        "sold": "SELECT book, line, title FROM library.sold_lines ORDER BY 1, 2",
    }
    return {name: ask(url, query) for name, query in queries.items()}


def test_what_is_stored_of_a_part_is_kept_and_the_chosen_part_is_shown(
    library: Library, reading: Job, warehouse: str
) -> None:
    library.add("a", "one", "two three", "four", sold=2)
    library.add("b", "five", sold=None)
    assert run_stream(reading).status == "complete"
    assert library.asked == [("a", []), ("b", [])]
    first = stored(warehouse)
    assert first == {
        "books": [("a", "Of a", 3, 2), ("b", "Of b", 1, None)],
        "editions": [
            ("a", 1, None, None),
            ("a", 2, "Printer", "two three"),
            ("a", 3, "Printer", "four"),
            ("b", 1, "Printer", "five"),
        ],
        "lines": [("a", 2, "three"), ("a", 2, "two"), ("a", 3, "four"), ("b", 1, "five")],
        "sold": [("a", "three", "Of a"), ("a", "two", "Of a")],
    }

    library.add("a", "one", "two three", "four", "six", sold=3)
    run = run_stream(reading)
    assert (run.status, run.updated, run.error) == ("complete", 1, None)
    assert library.asked[2:] == [("a", [2, 3])]
    now = stored(warehouse)
    assert now["editions"] == sorted([*first["editions"], ("a", 4, "Printer", "six")])
    assert now["lines"] == sorted([*first["lines"], ("a", 4, "six")])
    assert now["sold"] == [("a", "four", "Of a")]
    assert run_stream(reading).rows_written == 0
    assert len(library.asked) == 3


def test_what_the_list_fills_is_the_list_s_even_if_nothing_is_fetched(
    library: Library, reading: Job, warehouse: str
) -> None:
    library.add("a", "one", sold=1)
    run_stream(reading)
    library.books["a"]["title"] = "Another"
    library.books["a"]["sold"] = None  # which the list does not show
    run = run_stream(reading)
    assert (run.status, run.updated, len(library.asked)) == ("complete", 1, 1)
    assert stored(warehouse)["books"] == [("a", "Another", 1, 1)]


def test_a_record_that_cannot_be_fetched_keeps_all_its_parts(
    library: Library, reading: Job, warehouse: str
) -> None:
    library.add("a", "one", sold=1)
    library.add("b", "two", sold=1)
    run_stream(reading)
    before = stored(warehouse)
    library.add("a", "one", "three", sold=2)
    library.closed.add("a")
    run = run_stream(reading)
    assert (run.status, run.rows_written) == ("incomplete", 0)
    assert "(a: closed)" in str(run.error)
    assert stored(warehouse) == before
    library.closed.clear()
    assert run_stream(reading).updated == 1
    assert stored(warehouse)["sold"] == [("a", "three", "Of a"), ("b", "two", "Of b")]


def test_records_that_fill_the_room_are_staged_by_fewer(
    library: Library, reading: Job, warehouse: str
) -> None:
    for number in range(6):
        library.add(f"book-{number}", f"a{number}" + " " * 3_000_000, sold=1)
    run = run_stream(reading)
    assert (run.status, run.inserted, run.rejected) == ("complete", 6, 0)
    assert len(stored(warehouse)["editions"]) == 6
