"""What becomes of whole records in a run, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from etl.load.named import Listing


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becomes of records; those of a real run are only what is `missing` and `deleted`.

    `dry_run`   whether nothing of it is written.
    `missing`   are so many unlisted at once that the safety stop keeps them.
    `deleted`   leave their table.
    `new`, `changed` are inserted, updated; `fields` says how many are in each field.
    `unlisted`  stand in the table and not in the full scan, which is proven; `confirmed` are those
                of them that are known to be gone. They stay while another one is in doubt.
    """

    dry_run: bool = False
    missing: Listing = field(default_factory=Listing)
    deleted: Listing = field(default_factory=Listing)
    new: Listing = field(default_factory=Listing)
    changed: Listing = field(default_factory=Listing)
    fields: Mapping[str, int] = field(default_factory=dict)
    unlisted: Listing = field(default_factory=Listing)
    confirmed: Listing = field(default_factory=Listing)
