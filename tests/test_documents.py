"""What the documents quote can be printed, and their links lead somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl import errors
from tests.docs import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
HOLE = "\0"
"""What stands for a value in a text of the source."""


def texts(path: Path) -> Iterator[str]:
    """Yield every text of a module but its docstrings, with HOLE for each value put into it."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
            )
        elif isinstance(node, ast.Constant) and node not in docstrings:
            yield str(node.value)


def first_cells(page: str, section: str = "") -> list[str]:
    """Return the texts in code marks in the first column of the tables below a heading."""
    found = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0] if section else page
    cells = [line.split(" | ")[0] for line in found.splitlines() if line.startswith("| `")]
    return [text for cell in cells for text in re.findall("`([^`]+)`", cell)]


def is_printed(quote: str, sources: list[str]) -> bool:
    """Return whether one text has all parts of the quote, in their order, a value at each "…"."""
    value = rf"\s*{HOLE}.*"
    pattern = value.join(re.escape(part.strip()) for part in quote.split("…"))
    return any(re.search(pattern, text, re.DOTALL) for text in sources)


QUOTES = first_cells(PAGE.read_text(encoding="utf-8").partition("\n## By `error_kind`")[0])


@pytest.fixture(scope="module")
def sources() -> list[str]:
    code = [path for path in ROOT.glob("etl/**/*.py") if "sandbox" not in path.parts]
    found = [text for path in code for text in texts(path)]
    return [*found, *(ROOT / "Makefile").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("quote", QUOTES)
def test_a_message_that_is_explained_can_be_printed(quote: str, sources: list[str]) -> None:
    assert is_printed(quote, sources)


def test_a_message_that_was_changed_is_noticed(sources: list[str]) -> None:
    assert is_printed("the data belongs to user id …, not to you", sources)
    assert not is_printed("the data belongs to user id …, not to them", sources)
    assert not is_printed("the data … belongs to user id", sources)
    assert not is_printed("not to you … the data belongs to user id", sources)


def kinds(error: type[errors.CallflowError]) -> Iterator[str]:
    yield error.kind
    for each in error.__subclasses__():
        yield from kinds(each)


def test_every_kind_of_error_is_explained() -> None:
    given = {
        str(word.value.value)
        for path in ROOT.glob("etl/sync/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "kind" and isinstance(word.value, ast.Constant)
    }
    explained = first_cells(PAGE.read_text(encoding="utf-8"), "By `error_kind`")
    assert sorted(explained) == sorted({*kinds(errors.CallflowError), *given})


def anchors(page: str) -> set[str]:
    """Return the anchors that the headings of a page get: GitHub's rule, without repeated ones."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


PAGES = [
    path for folder in ("", "docs/", "examples/*/") for path in sorted(ROOT.glob(f"{folder}*.md"))
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page):
        name, _, anchor = link.partition("#")
        to = (path.parent / name).resolve() if name else path
        assert to.exists(), link
        if anchor:
            assert anchor in anchors(to.read_text(encoding="utf-8")), link
