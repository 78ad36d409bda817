"""`callflow init`: a commented callflow.toml to fill in."""

import sys
from pathlib import Path

from etl.config.example import write_example
from etl.config.redact import harmless


def run(path: Path) -> None:
    """Write the example to the new file `path`, and say what comes next.

    Raises ConfigError when the file exists already, or cannot be written.
    """
    write_example(path)
    sys.stdout.write(
        f"Wrote {harmless(str(path))}. Fill in one source, then:\n"
        "  callflow check   shows what is missing\n"
        "  callflow sync    fills the warehouse\n"
    )
