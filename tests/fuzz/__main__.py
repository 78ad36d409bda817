"""`python -m tests.fuzz --records 200000 --seed 7`: odd records through whole runs."""

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from etl.warehouse.embedded import find_binaries
from tests.fuzz.campaign import campaign
from tests.postgres import running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", type=int, help="this round alone")
    given = parser.parse_args()
    say(f"seed {given.seed}")
    start = reported = time.monotonic()
    with (
        running(find_binaries(os.environ)) as cluster,
        tempfile.TemporaryDirectory() as folder,
        cluster.database(template=cluster.migrated) as url,
        campaign(url, Path(folder), given.seed) as fuzzing,
    ):
        rounds = itertools.count() if given.only is None else [given.only]
        for number in rounds:
            try:
                fuzzing.run_round(number)
            except Exception:
                say(f"again: python -m tests.fuzz --seed {given.seed} --only {number}")
                raise
            if fuzzing.records >= given.records:
                break
            if time.monotonic() - reported > 10:
                reported = time.monotonic()
                say(f"{fuzzing.records:,} records, round {number}")
        say(
            f"{fuzzing.records:,} records in {fuzzing.runs} runs, {fuzzing.rejected:,} rejected and"
            f" all others found again; {time.monotonic() - start:.0f} s"
        )


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
