"""The catalogue of faults: what can happen to a sync, and what becomes of it.

A test that shows what becomes of fault n is marked `@pytest.mark.fault(n)`, in whatever file it is.
docs/reliability.md has the table of these and those, as `make docs` writes it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its number, which never changes, what happens, and what becomes of it."""

    number: int
    name: str
    outcome: str


CATALOGUE: tuple[tuple[str, tuple[tuple[int, str, str], ...]], ...] = (
    (
        "The provider",
        (
            (1, "429 that says how long to wait: seconds, a date, nonsense, a day",
             "callflow waits if it is short; a long one ends the run, which says until when"),
            (2, "429 or 5xx without a hint, or in every other answer",
             "pauses grow and are random; retries are a small share of the requests"),
            (3, "Alibaba's throttling, which is a 400",
             "asked again, signed with another nonce and time"),
            (4, "500, 502, 503, 504, with an HTML body or none",
             "asked again; what lasts ends the run with a short, clean excerpt"),
            (5, "200 with an error in its body",
             "treated like the error that it is, never as an empty list"),
            (6, "The access token expires in the middle of a scan",
             "fetched again once, and the same page asked for again"),
            (7, "Credentials revoked, a scope missing",
             "not asked again; the message names the scope or the key to correct"),
            (8, "An instance or a list that does not exist",
             "named in the error; nothing is removed"),
            (9, "An empty list where rows were",
             "nothing is removed without `--accept-deletes`; the run is not complete"),
            (10, "A page token that has expired",
             "the scan starts over, a few times at most"),
            (11, "Page tokens that go in a circle, lists that never end",
             "noticed when nothing new comes; the run ends, nothing is removed"),
            (12, "A page parameter that is ignored",
             "noticed by the echo, or because the page comes again; the run ends"),
            (13, "An empty or short page before the end",
             "read on; many empty ones in a row end the run"),
            (14, "Rows added, changed and deleted between two pages",
             "none lost, none removed falsely; what cannot be proven is not complete"),
            (15, "A list longer than the API lets anyone page",
             "read by type and from both ends; what stays out of reach is reported"),
            (16, "Unknown members, missing ones, numbers as text",
             "the record is loaded; what no column holds is in `extra`, as sent"),
            (17, "A record without a usable key",
             "kept raw in `etl.rejects`; the others are loaded, nothing is removed"),
            (18, "The same record twice, with different values",
             "the last answer counts, written once"),
            (19, "A count that is missing, wrong, or no number",
             "what was read is kept; nothing is removed on the strength of it"),
            (20, "An answer from a replica that lags behind",
             "one list alone removes nothing; a row that comes back shows its gap"),
        ),
    ),
    (
        "The network",
        (
            (21, "An unknown host, a refused connection", "asked again, then named in the error"),
            (22, "A certificate that is expired, self-signed, or another host's",
             "never accepted, whatever the environment says"),
            (23, "A connection cut in the middle of an answer",
             "the page is asked for again; half of one is never read"),
            (24, "JSON that breaks off although the answer is whole",
             "asked again, then a broken contract"),
            (25, "An answer that comes byte by byte, or never",
             "a deadline for the whole request, and one for the whole scan"),
            (26, "An answer of a gigabyte", "not read beyond the limit; memory stays flat"),
            (27, "A small answer that unpacks to a huge one",
             "unpacked up to the limit only; memory stays flat"),
            (28, "A web page where JSON should be", "a broken contract, with its title as excerpt"),
            (29, "A redirect", "not followed, whatever it leads to"),
            (30, "A next page on another host, port or path",
             "never asked for: credentials go to the configured host only"),
            (31, "Proxies, certificates and passwords in the environment",
             "they decide nothing; only the configuration does"),
        ),
    ),
    (
        "The data",
        (
            (32, "NUL in any text", "readable in its column, as sent in `extra`"),
            (33, "Half a surrogate pair", "readable in its column, as sent in `extra`"),
            (34, "NaN, Infinity, 1e400", "the record is set apart or its value kept as text"),
            (35, "Numbers that no column holds", "NULL in the column, as sent in `extra`"),
            (36, "Values nested very deeply", "kept as JSON, or as its text"),
            (37, "Times that are none, or beyond the calendar",
             "NULL in the column, as sent in `extra`, never a watermark"),
            (38, "Times without a zone", "read in the zone that the source is configured with"),
            (39, "Keys that are empty, very long, or hold odd characters",
             "those that can be stored are kept exactly; the others are set apart"),
            (40, "Definitions that are huge, no JSON, or repeat members",
             "the text is kept as sent; what can be read of it is in tables"),
            (41, "Names with quotes, SQL, line breaks, terminal codes",
             "stored as they are; a log line stays one line, a terminal is left alone"),
            (42, "A time of change that goes back", "what the provider has now is what is stored"),
            (43, "A change that moves no time of change",
             "found by its content, at the next full scan at the latest"),
        ),
    ),
    (
        "Postgres",
        (
            (44, "The same key twice in one batch", "the last one is left before it is merged"),
            (45, "Deadlocks, serialization failures", "the transaction is repeated"),
            (46, "The session is ended at any statement, or in the middle of a COPY",
             "nothing of the run stays; the next one needs no help"),
            (47, "The answer to a COMMIT is lost",
             "the warehouse is asked what became of it; it is never guessed"),
            (48, "A standby that only reads, a server that is away",
             "reported with what to do; the daemon waits for it"),
            (49, "The disk of the server is full",
             "the run is rolled back and says so; it goes on when there is room"),
            (50, "A lock or a statement that takes too long",
             "rolled back; the error says what to end or to set"),
            (51, "A session ended because its transaction idled",
             "no transaction is open while a provider is waited for"),
            (52, "A unique index or a constraint that a user added",
             "rolled back; the error names it"),
            (53, "A table, a column, a right is missing; the schema is newer",
             "refused before anything is read, with the command to run"),
            (54, "A pooler in transaction mode", "works as without one"),
            (55, "Rows rewritten for nothing",
             "a run in which nothing changed writes no row and uses no sequence value"),
            (56, "A table is altered while it is used", "the statement is made again"),
            (57, "More values than a statement takes", "sent as arrays, so there is no limit"),
            (58, "A database that cannot hold Unicode", "refused, with what to do"),
        ),
    ),
    (
        "The process and its machine",
        (
            (59, "SIGKILL at any instant, of a run or of Postgres",
             "before or after, never between; nothing lost, doubled or torn"),
            (60, "SIGTERM or SIGINT, once or twice, at any point",
             "ends within seconds; what was not committed is rolled back"),
            (61, "Two runs of one stream", "one works, the other reports which process holds it"),
            (62, "A process stopped past the end of its lease resumes", "it can write nothing"),
            (63, "No memory, no disk for the log, no reader of the output",
             "reported in a line, or the line is lost and the sync goes on"),
            (64, "A run that is longer than its interval, a machine that slept",
             "never two at once; what was missed is made up for once"),
        ),
    ),
    (
        "Time",
        (
            (65, "The machine's clock is set, by an hour or a year",
             "planned again once; no watermark moves"),
            (66, "A clock too wrong for Alibaba's signatures",
             "the error says by how much it is wrong"),
            (67, "Clocks change for summer time", "a time of day is met once a day, both ways"),
        ),
    ),
    (
        "Configuration and security",
        (
            (68, "Unknown keys, wrong types, missing secrets, several at once",
             "all reported together, before anything is asked"),
            (69, "A secret that others can read", "refused, unless it is allowed"),
            (70, "A database password with @ / : %",
             "works when it is escaped; one that is not is refused and not repeated"),
            (71, "A base_url without TLS, at a private or a metadata address", "refused"),
            (72, "Secrets and phone numbers in what a provider says",
             "in no output: log, tables, page, messages, processes"),
            (73, "Names from the configuration that are no identifiers", "refused, or quoted"),
            (74, "Objects or code where data is read",
             "only JSON and TOML are read; nothing is unpickled"),
        ),
    ),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = tuple(Fault(*each) for _, group in CATALOGUE for each in group)
