"""What a run is about to do with records as lines for a person, in the markup of rich. Pure."""

from collections.abc import Callable, Iterator, Sequence

from rich.markup import escape

from etl.commands.lines import number
from etl.config.redact import harmless
from etl.load.named import Listing, Named
from etl.sync.outlook import Outlook

SHOWN = 10
"""How many records of each list of a dry run are printed; --json has more."""

LONGEST = 80
"""Characters of a name or an id."""


def deletes(name: str, outlook: Outlook, quote: Callable[[str], str]) -> list[str]:
    """Return whom the run of the stream `name` is about to delete; `quote` hides what is private.

    Empty if it is nobody.
    """
    listing = outlook.deleted
    if not listing.total or outlook.dry_run:
        return []
    title = f"{escape(name)}: {number(listing.total, 'record')} will be deleted"
    return [title, *_names(listing, len(listing.records), quote)]


def foreseen(outlook: Outlook) -> Iterator[str]:
    """Yield what a dry run would have done."""
    counts = ", ".join(f"{escape(field)} {count:,}" for field, count in outlook.fields.items())
    undecided = outlook.unlisted.total - outlook.deleted.total - outlook.missing.total
    for title, listing in (
        ("would be added", outlook.new),
        (f"would be changed ({counts})", outlook.changed),
        ("would be deleted, confirmed to be gone", outlook.deleted),
        ("not listed any more; the safety stop keeps them", outlook.missing),
    ):
        if listing.total:
            yield f"    {number(listing.total, 'record')} {title}"
            yield from _names(listing, SHOWN)
    if undecided > 0:
        held = f"{number(undecided, 'record')} not listed any more, but kept for now"
        known = outlook.confirmed.total - outlook.deleted.total
        yield f"    {held}" + (f"; {known:,} confirmed to be gone" if known else "")
        gone = {each.key for each in outlook.deleted.records}
        left = [each for each in outlook.unlisted.records if each.key not in gone]
        yield from _names(Listing(undecided, left), SHOWN)


def _short(text: str) -> str:
    line = harmless(" ".join(text.split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _names(listing: Listing, most: int, quote: Callable[[str], str] = _short) -> Iterator[str]:
    shown: Sequence[Named] = listing.records[:most]
    for each in shown:
        known = quote(each.id)
        line = known if each.name is None else f'"{quote(each.name)}" ({known})'
        fields = f": {', '.join(each.fields)}" if each.fields else ""
        yield f"        {escape(line + fields)}"
    if listing.total > len(shown):
        yield f"        and {listing.total - len(shown):,} more"
