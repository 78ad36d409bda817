"""The standard streams of a command: open, whatever the caller left of them, and of any text."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from etl.errors import OutputError


class _Results(io.FileIO):
    """The file behind stdout. Its errors name it, unlike an OSError from anywhere else."""

    def write(self, data: Any, /) -> int:
        """Write as FileIO does. Raises OutputError; BrokenPipeError if the reader has gone."""
        try:
            return super().write(data)
        except BrokenPipeError:
            # For what is still buffered: from 3.14 on Python would report it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise
        except OSError as error:
            raise OutputError(
                f"cannot be written: {error.strerror}",
                where="stdout",
                advice="free space, or write elsewhere",
            ) from error


class _Messages(io.FileIO):
    """The file behind stderr. What a full disk does not take is lost, and `lost` says why."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write as FileIO does. Raises BrokenPipeError if the reader has gone."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:  # the exit code still says what became of the command
            self.lost = error
            return memoryview(data).nbytes


@contextmanager
def required(stream: TextIO) -> Iterator[None]:
    """Raise OSError at the end unless all that the block wrote to `stream`, stderr, was written."""
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    if isinstance(file, _Messages):
        file.lost = None
    yield
    stream.flush()
    if isinstance(file, _Messages) and file.lost is not None:
        raise file.lost


def open_streams() -> None:
    """Make the standard streams accept any text, even if the caller has closed them.

    A character that their encoding lacks is written as an escape, which JSON knows. From now on
    stdout raises OutputError, and stderr no error of a disk.
    """
    codecs.register_error("callflow_escape", _escape)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # This takes the lowest free file number, which is the stream's own, so that no
            # connection can get it.
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="callflow_escape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _over(sys.stdout, _Results)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _over(sys.stderr, _Messages)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Return the escapes, such as \\u00f6, of what cannot be encoded, and where that ends."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit}" for unit in lacking.hex(" ", 2).split()), error.end


def _over(stream: io.TextIOWrapper, kind: type[io.FileIO]) -> io.TextIOWrapper:
    """Return a stream like this one over a file of that kind."""
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )
