"""Files that the configuration names: read at once, up to a limit, as UTF-8."""

import io
import os
import stat
from pathlib import Path

from etl.errors import ConfigError


def read_text(file: Path, limit: int = 1 << 20) -> tuple[str, bool]:
    """Return the file's text, and whether others than its owner can read it.

    Raises ConfigError for what is no file, is larger than `limit` bytes, or is not UTF-8.
    """
    try:
        with io.BufferedReader(io.FileIO(file, opener=_open_at_once)) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError("cannot be read: it is a pipe or a device; expected a file")
            data = opened.read(limit + 1)
            exposed = bool(mode & 0o077)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError("cannot be read: not a valid path") from None
    if len(data) > limit:
        raise ConfigError(f"is larger than {limit >> 10} KiB")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError("is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig"), exposed
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"is not UTF-8 (line {line}); save it as UTF-8") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as opening a pipe would until someone writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
