"""A sandbox, and streams synced from it into a warehouse that some of these tests share."""

from tests.sync.conftest import sandbox, sync

__all__ = ["sandbox", "sync"]
