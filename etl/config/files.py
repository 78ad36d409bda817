"""Files that the configuration names: read at once, up to a limit, as UTF-8; and new ones."""

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from etl.errors import ConfigError

_ANOTHER = "name another file, or remove this one"


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


def write_new(
    path: Path,
    content: bytes,
    mode: int = 0o666,
    *,
    advice: str = _ANOTHER,
) -> None:
    """Write `content` to the new file `path`; `mode` are its rights, less those of the umask.

    Raises ConfigError if the file is there already, with `advice`, or if it cannot be written.
    """
    write_all_new([(path, content)], mode, advice=advice)


def write_all_new(
    files: Iterable[tuple[Path, bytes]], mode: int = 0o666, *, advice: str = _ANOTHER
) -> None:
    """Write new files, all of them or none: what `write_new` writes, and raises, for each."""
    made: list[Path] = []
    try:
        for path, content in files:
            with _said_of(path, advice):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                made.append(path)
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def require_new(path: Path, *, advice: str = _ANOTHER) -> None:
    """Raise ConfigError with `advice` if something has that name already, as `write_new` would."""
    with _said_of(path, advice):
        if os.path.lexists(path):
            raise FileExistsError


def require_writable(directory: Path, *, whose: Path) -> None:
    """Raise ConfigError about the new file `whose` if none can be made in `directory`."""
    with _said_of(whose, _ANOTHER):
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _said_of(path: Path, advice: str) -> Iterator[None]:
    """Raise what goes wrong with the file `path` as ConfigError; `advice` if it is there."""
    try:
        yield
    except FileExistsError:
        raise ConfigError(
            "already exists; it was not changed", where=str(path), advice=advice
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        advice = "choose another path, or make the directory"
        raise ConfigError(f"cannot be written: {reason}", where=str(path), advice=advice) from None


def write_own(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all, readable by its owner only.

    The first line of `text` marks the file as ours: an existing file is replaced if it starts with
    that line. Raises ConfigError for any other existing file, and where nothing can be written.
    """
    with _said_of(path, _ANOTHER):
        if os.path.lexists(path) and not _starts_with(path, text.partition("\n")[0]):
            raise ConfigError(
                "already exists; it was not changed", where=str(path), advice=_ANOTHER
            )
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".callflow-", delete=False
        ) as file:
            try:
                file.write(text)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise


def _starts_with(path: Path, line: str) -> bool:
    try:
        return not path.is_symlink() and read_text(path)[0].partition("\n")[0] == line
    except ConfigError:
        return False


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as opening a pipe would until someone writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
