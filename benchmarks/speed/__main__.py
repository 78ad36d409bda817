"""Measure callflow, bare COPY and dlt, and write docs/performance.md.

    python -m benchmarks.speed [--quick] [--peers] [--scale 1.0] [--repetitions 3]
        [--only GROUP …] [--resume] [--report] [--results FOLDER] [--page FILE]

Every measured run is one line in FOLDER/runs.jsonl, written when it ends; the page and its chart
are written from that file. `--resume` keeps what is there and measures the groups that it lacks,
`--report` measures nothing. A step that fails is noted, and the rest goes on; then the exit code
is 1. `--quick` measures a few groups into a folder that is not committed, and prints the tables.
"""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.speed import page, scenarios
from benchmarks.speed.bench import ROOT, Options, measure_all

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    names = [group.name for group in scenarios.groups(1, peers=False)]
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help=f"only {', '.join(scenarios.QUICK)}")
    options.add_argument("--peers", action="store_true", help="dlt too, which is installed once")
    options.add_argument("--scale", type=float, default=1.0, help="of the lists; 0.01 to try it")
    options.add_argument("--repetitions", type=int, default=3)
    options.add_argument("--only", nargs="+", metavar="GROUP", choices=names, help=str(names))
    options.add_argument("--resume", action="store_true", help="keep what is there")
    options.add_argument("--report", action="store_true", help="only write the page again")
    options.add_argument("--results", type=Path, metavar="FOLDER")
    options.add_argument("--page", type=Path, metavar="FILE")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = given.results or (RESULTS / "quick" if given.quick else RESULTS)
    results.mkdir(parents=True, exist_ok=True)
    file = results / "runs.jsonl"
    if not given.report:
        how = Options(given.scale, given.peers, given.repetitions, given.resume)
        measure_all(given.only or (scenarios.QUICK if given.quick else names), file, how)
    results_read = page.read(file)
    target = given.page or (None if given.quick else PAGE)
    if target:
        page.write(target, results_read)
    else:
        print(page.text(results_read))
    return 1 if results_read.failed else 0


if __name__ == "__main__":
    sys.exit(main())
