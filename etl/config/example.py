"""The commented callflow.toml that `callflow init` writes."""

from pathlib import Path

from etl.config.files import write_new


def write_example(path: Path) -> None:
    """Write the commented example to the new file `path`, readable by its owner only.

    Raises ConfigError when the file exists already, or cannot be written.
    """
    text = Path(__file__).with_name("callflow.example.toml").read_bytes()
    write_new(path, text, 0o600, advice="edit it, or name another file")
