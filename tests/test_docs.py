"""What the documents derive from the code is up to date, for any number of providers."""

import pytest

from etl.providers import PROVIDERS
from tests.docs import PARTS, ROOT, Part

OF_ALL_PROVIDERS = ("faults", "asked", "questions")
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
