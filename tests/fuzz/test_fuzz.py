"""A short campaign; `python -m tests.fuzz --records 200000` is the long one."""

from pathlib import Path

import pytest

from tests.fuzz.campaign import SIZES, campaign

pytestmark = pytest.mark.slow


@pytest.mark.fault(16, 17, 32, 33, 34, 35, 36, 37, 39, 41)
def test_every_odd_record_is_in_its_table_or_in_the_rejects(
    warehouse: str, tmp_path: Path, seed: int
) -> None:
    with campaign(warehouse, tmp_path, seed) as fuzzing:
        for number in range(2 * len(SIZES) + 2):
            fuzzing.run_round(number, share=0.5)
        assert fuzzing.records > 2000
        assert fuzzing.rejected > 50
