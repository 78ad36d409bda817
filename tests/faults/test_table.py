"""The catalogue of faults has no hole, and each of them has a test."""

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.table import found, marked, table

# In two parts, so that these are not found as marks of this module.
MARK = "pytest.mark." + "fault"
SHAPES = f"""
pytestmark = [pytest.mark.slow, {MARK}(1)]
CASES = [pytest.param(1, marks={MARK}(5, 6)), 2]

@{MARK}(2, 3)
@pytest.mark.parametrize("x", [1])
def test_a(x): ...

@pytest.mark.parametrize("x", [pytest.param(1, marks=[{MARK}(4)]), pytest.param(2)])
async def test_b(x): ...

@pytest.mark.parametrize("x", CASES)
def test_c(x): ...

class TestGroup:
    pytestmark = {MARK}(7)

    @{MARK}(8)
    def test_d(self): ...

    def helper(self): ...
"""


def test_marks_are_found_wherever_pytest_takes_them() -> None:
    every = ["test_a", "test_b", "test_c", "TestGroup::test_d"]
    assert marked(SHAPES, "x.py") == {
        1: every,
        2: ["test_a"],
        3: ["test_a"],
        4: ["test_b"],
        5: ["test_c"],
        6: ["test_c"],
        7: ["TestGroup::test_d"],
        8: ["TestGroup::test_d"],
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"@{MARK}(*NUMBERS)\ndef test_a(): ...", "write the numbers"),
        (f"@{MARK}(NUMBER)\ndef test_a(): ...", "write the numbers"),
        (f"@{MARK}(1)\ndef helper(): ...", "belongs to no test"),
    ],
)
def test_a_mark_that_says_nothing_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"x.py:1: .*{problem}"):
        marked(text, "x.py")


def test_every_fault_has_a_test_and_every_mark_a_fault() -> None:
    tests = found()
    numbers = [fault.number for fault in FAULTS]
    assert numbers == list(range(1, 75))
    assert set(tests) == set(numbers)


def test_a_fault_without_a_test_shows() -> None:
    assert table({}).count("no test yet") == len(FAULTS)
