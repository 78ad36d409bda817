"""Pictures of the terminal for the documents: `python -m tests.terminal_pictures [DIR]`.

Each shows what real commands print on a terminal of that width, on the data of the sandbox.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from etl.sandbox.data import Sizes
from etl.sandbox.server import Sandbox, serve
from etl.warehouse.embedded import find_binaries
from tests.postgres import dsn, running

WIDTHS = (80, 120)
COMMANDS = (
    ("status",),
    ("changes", "--limit", "6"),
    ("show", "zoom_demo.flows", "--missing"),
    ("sql", "SELECT provider, status, count(*) FROM callflow.flows GROUP BY 1, 2 ORDER BY 1, 2"),
)
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = FORMAT.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


def printed(words: Sequence[str], config: Path, width: int) -> str:
    """Return what `callflow WORDS…` prints on a terminal that is `width` columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    env = os.environ | {"TERM": "xterm-256color", "CALLFLOW_CONFIG": str(config), "TZ": "UTC"}
    with subprocess.Popen(
        [sys.executable, "-m", "etl", "-q", *words],
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        found = bytearray()
        with suppress(OSError):  # it has closed its side
            while part := os.read(ours, 1 << 16):
                found += part
    os.close(ours)
    return found.decode().replace("\r\n", "\n")


def prepare(sandbox: Sandbox, config: Path) -> None:
    """Sync, change a few records, and sync again; a safety stop keeps the flows of a provider."""
    printed(["sync"], config, 80)
    for each in sandbox.emulators.values():
        each.change()
    printed(["sync"], config, 80)
    for key in sandbox.zoom.flows.keys()[:14]:
        sandbox.zoom.flows.delete(key)
    printed(["sync", "zoom_demo"], config, 80)


def main(folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        running(find_binaries(os.environ)) as cluster,
        cluster.database(cluster.migrated) as url,
        serve(Sizes(40, 500), 1) as sandbox,
    ):
        config = Path(place, "callflow.toml")
        config.write_text(f'[warehouse]\nurl = "{dsn(url)}"\n\n{sandbox.toml()}')
        config.chmod(0o600)
        prepare(sandbox, config)
        for width in WIDTHS:
            console = Console(record=True, width=width, file=io.StringIO())
            for words in COMMANDS:
                line = " ".join(f"'{each}'" if " " in each else each for each in words)
                console.print(Text.assemble(("$ ", "bold"), f"callflow {line}"))
                console.print(Text.from_ansi(printed(words, config, width)), soft_wrap=True)
            svg = console.export_svg(title=f"callflow, {width} columns", code_format=FORMAT)
            target = folder / f"terminal-{width}.svg"
            target.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
            sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "docs/images"))
