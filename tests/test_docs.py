"""What the documents derive from the code is up to date, for any number of providers."""

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from sqlalchemy import Table

from etl.providers import PROVIDERS
from etl.providers.catalog import PARTS as PARTS_OF_VIEWS
from etl.warehouse.model.definition import ViewDefinition
from tests.docs import PARTS, ROOT, Part
from tests.model_docs import SHOWN, columns_of, links, parts_of
from tests.model_svg import height, placed, svg
from tests.postgres import ask

OF_ALL_PROVIDERS = ("faults", "asked", "questions", "columns")
"""What is written of no provider in particular."""


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.file} {part.write.__name__}")
def test_the_document_is_what_the_code_says(part: Part) -> None:
    text = (ROOT / part.file).read_text(encoding="utf-8")
    assert part.written(text) == text, f"{part.file} is out of date: run `make docs`"


def test_a_provider_less_is_a_provider_less_in_each_part() -> None:
    for part in PARTS:
        if part.write.__name__ not in OF_ALL_PROVIDERS:
            without = part.write(PROVIDERS[1:])
            assert PROVIDERS[0].title not in without
            assert PROVIDERS[0].name not in without
            assert len(without) < len(part.write(PROVIDERS))


def test_a_document_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md has no <!-- needs: written"):
        PARTS[1].written("# callflow\n")


def test_the_dictionary_has_the_columns_of_the_database(warehouse: str) -> None:
    columns = """
        SELECT table_name, json_agg(json_build_array(column_name, CASE data_type
            WHEN 'timestamp with time zone' THEN 'timestamptz' ELSE data_type END)
            ORDER BY ordinal_position)
        FROM information_schema.columns WHERE table_schema = 'callflow' GROUP BY table_name
    """
    found = {row[0]: row[1] for row in ask(warehouse, columns)}
    views = [name for name, each in parts_of(PROVIDERS) if isinstance(each, ViewDefinition)]
    assert found.keys() == {*views}
    for name in views:
        assert found[name] == [[*pair] for pair in columns_of(name).items()], name


def test_the_picture_shows_every_column_and_runs_nothing() -> None:
    root = ElementTree.fromstring(svg(PROVIDERS))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    for view, columns in SHOWN.items():
        for name in (view, *(column.name for column in columns)):
            assert name in texts
    tags = {each.tag.partition("}")[2] for each in root.iter()}
    assert tags == {"svg", "style", "rect", "path", "circle", "text"}


def test_nothing_in_the_picture_covers_another_thing() -> None:
    boxes = placed()
    for view, box in boxes.items():
        for other, place in boxes.items():
            if box.column == place.column and box.y < place.y:
                assert box.y + height(view) < place.y, (view, other)


def test_a_link_drawn_solid_is_one_that_postgres_holds() -> None:
    """The table under a view has the one under the other as its parent, or is the same."""
    for link in links():
        if link.optional:
            continue
        wanted = {part.table.fullname for _, part in PARTS_OF_VIEWS if part.view == link.to}
        for _, part in PARTS_OF_VIEWS:
            if part.view == link.view:
                assert wanted & {*above(part.table)}, link


def above(table: Table) -> Iterator[str]:
    """Yield the name of a table, of its parent, of the parent's parent, …"""
    yield table.fullname
    if (parent := table.info["parent"]) is not None:
        yield from above(parent)
