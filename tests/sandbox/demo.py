"""Write what the Docker demo needs to know of the emulators: `make docs` runs this file."""

from pathlib import Path

from etl.sandbox.server import EMULATORS, PORTS, Emulated, toml

FOLDER = Path(__file__).resolve().parents[2] / "examples/demo"

HEAD = """\
# The configuration of `docker compose --profile demo up`: the sources that `callflow sandbox`
# prints, at its default ports. The secrets are in sandbox.env. `make docs` writes both files.
[schedule]
every = "1m"
stale_after = "5m"
"""


def emulators() -> list[Emulated]:
    """Return the emulators as they would answer at their default ports."""
    found = [emulator() for emulator in EMULATORS]
    for emulator, port in zip(found, PORTS, strict=True):
        emulator.url = f"http://127.0.0.1:{port}"
    return found


def files() -> dict[Path, str]:
    """Return the text of each file that follows from the emulators."""
    secrets = [
        f"CALLFLOW_SOURCES__{each.name}_DEMO__{key}".upper() + f"={value}"
        for each in emulators()
        for key, value in each.secrets().items()
    ]
    return {
        FOLDER / "sandbox.toml": "\n".join([HEAD, *(toml(each, {}) for each in emulators())]),
        FOLDER / "sandbox.env": "\n".join(
            ["# Not real secrets: every sandbox has the same.", *secrets, ""]
        ),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
