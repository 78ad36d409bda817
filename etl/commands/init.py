"""`callflow init`: a new callflow.toml, of answers or to fill in; or its JSON Schema."""

import json
import sys
from pathlib import Path

from etl.commands.options import program_for
from etl.config.example import ADVICE, write_example
from etl.config.files import require_new
from etl.config.redact import harmless


def run(path: Path, *, asks: bool) -> int:
    """Write the new file `path`, say what comes next, and return the exit code.

    Where it `asks`, it does so before it writes, and then checks the source; 1 if that fails.
    Without, it writes the commented example. Raises ConfigError when the file exists already, or
    cannot be written; StoppedError when Ctrl-C ends the questions.
    """
    if asks:
        require_new(path, advice=ADVICE)
        from etl.commands import setup

        return setup.run(path)
    write_example(path)
    sys.stdout.write(
        f"Wrote {harmless(str(path))}. Fill in one source, then:\n"
        f"  {program_for(path)} check   shows what is missing\n"
        f"  {program_for(path)} sync    fills the warehouse\n"
    )
    return 0


def print_schema() -> None:
    """Print the JSON Schema of callflow.toml."""
    from etl.config.schema import schema
    from etl.providers import PROVIDERS

    sys.stdout.write(json.dumps(schema(PROVIDERS), indent=2, ensure_ascii=False) + "\n")
