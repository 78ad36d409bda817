"""The wall clock, which is handed in as an argument wherever it is read."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the wall clock's time, aware, in UTC."""
    return datetime.now(UTC)
