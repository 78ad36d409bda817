"""docs/performance.md: the tables between the marks, and the chart, from what was measured."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.speed import chart, model
from benchmarks.speed.results import SIZES, Results, Run, mine, read

__all__ = ["PARTS", "read", "text", "write", "written"]

FIRST, QUIET, SOME, ALL = "first load", "nothing changed", "1 % changed", "all changed"
MISSING = "–"


def begin(name: str) -> str:
    return f"<!-- {name}: written by `make bench` -->"


def end(name: str) -> str:
    return f"<!-- {name}: end -->"


def written(document: str, results: Results) -> str:
    """Return the document with its tables up to date. Raises ValueError where one has no place."""
    for name, part in PARTS.items():
        before, opened, rest = document.partition(begin(name))
        _, closed, after = rest.partition(end(name))
        if not opened or not closed:
            raise ValueError(f"the page has no {begin(name)} … {end(name)}")
        document = f"{before}{opened}\n{part(results).rstrip()}\n{closed}{after}"
    return document


def write(file: Path, results: Results) -> None:
    """Write the tables into the page, and its chart beside it."""
    document = written(file.read_text(encoding="utf-8"), results)
    file.write_text(document, encoding="utf-8")
    file.with_suffix(".svg").write_text(chart.svg(results), encoding="utf-8")


def text(results: Results) -> str:
    """Return all tables, for a terminal."""
    return "\n".join(f"{name}\n{part(results)}" for name, part in PARTS.items())


# --- how figures look ----------------------------------------------------------------------------
def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(value: float | None, unit: float = 1.0) -> str:
    """Return a figure with two or three digits that count."""
    if value is None:
        return MISSING
    value /= unit
    digits = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{value * 100:.0f} %"


def joined(values: Sequence[float | None], form: Callable[[float | None], str] = shown) -> str:
    return " / ".join(form(value) for value in values)


# --- the parts -----------------------------------------------------------------------------------
def described(results: Results) -> str:
    """Say on what was measured, how often, and how busy the machine was otherwise."""
    it = results.machine
    others = [
        line["others"]
        for line in results.lines
        if line.get("others") is not None and line["wall"] > 1
    ]
    lines = [
        f"Measured {it['started'][:10]} at commit {it['commit']}: {it['cpu']}, {it['cores']} "
        f"cores, {it['memory'] / 2**30:.0f} GiB, {it['system']}, Python {it['python']}, "
        f"{' and '.join(it['servers'])}. "
        f"Repetitions: {it['repetitions']}; figures are their medians."
    ]
    if it["scale"] != 1:
        lines.append(
            f"**Only a trial: the lists have {it['scale']:g} of their size**, so that start-up and"
            " noise decide, and nothing here says how fast callflow is."
        )
    if others:
        middle, most = statistics.median(others), max(others)
        lines.append(
            f"Load average before the start: {it['load']:.1f}. Other work on the machine during the"
            f" runs: {middle:.2f} cores, at most {most:.2f}."
        )
        if middle > 0.2:
            lines.append("**The machine was not quiet: compare ratios only.**")
    failed = sorted({f"{each['group']}, {each['tool']}, {each['step']}" for each in results.failed})
    if failed:
        lines.append(f"**Failed, and left out: {'; '.join(failed)}.**")
    return "\n".join(lines)


def summary(results: Results) -> str:
    """Return the ratios that matter."""
    measured = [size for size in SIZES if results.rows(size)]
    sizes = " / ".join(f"{results.rows(size):,}" for size in measured)

    def of_bare(step: str) -> str:
        bare = [Run(size, "bare", FIRST) for size in measured]
        return joined([results.ratio(b, mine(b.group, step)) for b in bare])

    def of_dlt(group: str, step: str) -> str:
        return joined(
            [results.ratio(Run(group, f"dlt {how}", step), mine(group, step)) for how in
             ("default", "tuned")]
        )  # fmt: skip

    def each(step: str, figure: str, unit: float = 1.0) -> str:
        found = [results.middle(mine(size, step), figure) for size in measured]
        return joined(found, lambda value: shown(value, unit))

    def ratio(step: str, other: Callable[[str], Run], figure: str = "wall") -> str:
        return joined([results.ratio(mine(size, step), other(size), figure) for size in measured])

    def upsert(figure: str, form: Callable[[float, float, float], float]) -> str:
        return joined([_of_upsert(results, size, figure, form) for size in measured])

    quiet: Callable[[str], Run] = lambda size: mine(size, QUIET)  # noqa: E731
    rows = [
        (f"first load, rows per second of bare's: {sizes}", of_bare(FIRST)),
        (f"nothing changed, rows per second of bare's: {sizes}", of_bare(QUIET)),
        ("first load, times as fast as dlt default / tuned", of_dlt("200k", FIRST)),
        ("nothing changed, times as fast as dlt default / tuned", of_dlt("200k", QUIET)),
        ("Zoom, first load, times as fast as dlt default / tuned", of_dlt("zoom", FIRST)),
        ("Zoom, nothing changed, times as fast as dlt default / tuned", of_dlt("zoom", QUIET)),
        (f"1 % changed, wall time of a run without a change: {sizes}", ratio(SOME, quiet)),
        (
            "Zoom, 1 % changed, wall time of a run without a change",
            shown(results.ratio(mine("zoom", SOME), mine("zoom", QUIET))),
        ),
        (
            f"all changed with history, wall time of staging and ON CONFLICT DO UPDATE: {sizes}",
            upsert("wall", lambda whole, staged, upserted: whole / (staged + upserted)),
        ),
        (
            f"all changed with history, Postgres CPU of that statement; staging left out: {sizes}",
            upsert("server_cpu", lambda whole, staged, upserted: (whole - staged) / upserted),
        ),
        (f"nothing changed, WAL in MB: {sizes}", each(QUIET, "wal", 1e6)),
        (f"nothing changed, row versions written: {sizes}", each(QUIET, "written")),
        (f"peak memory in MB, first load: {sizes}", each(FIRST, "peak", 1e6)),
        (
            "peak memory in MB, eight runs at once: first load / nothing changed",
            joined(
                [results.middle(mine("eight", step), "peak") for step in (FIRST, QUIET)],
                lambda value: shown(value, 1e6),
            ),
        ),
    ]
    return table(("figure", "measured"), iter(rows))


def _of_upsert(
    results: Results, size: str, figure: str, form: Callable[[float, float, float], float]
) -> float | None:
    """Return the median of `form` of a run that changes all, of staging, and of ON CONFLICT."""
    whole, staged, upserted = (
        results.of(Run(size, tool, step), figure)
        for tool, step in (("callflow", ALL), ("ON CONFLICT", "staged"), ("ON CONFLICT", ALL))
    )
    both = whole.keys() & staged.keys() & upserted.keys()
    found = [form(whole[n], staged[n], upserted[n]) for n in both if upserted[n]]
    return statistics.median(found) if found else None


def runs(results: Results) -> str:
    """Return a table of all runs but the starts."""
    head = ("list", "rows", "run", "wall s", "least–most", "of bare", "client CPU s",
            "Postgres CPU s", "peak MB", "WAL MB", "row versions", "disk MB", "runs")  # fmt: skip
    return table(head, (_row(results, run) for run in results.runs if run.group != "start-up"))


def _row(results: Results, run: Run) -> list[str]:
    walls = results.of(run, "wall").values()
    bare = results.ratio(Run(run.group, "bare", FIRST), run)

    def one(figure: str, unit: float = 1.0) -> str:
        return shown(results.middle(run, figure), unit)

    written = results.middle(run, "written")
    return [
        run.group, f"{results.rows(run.group):,}", f"{run.tool}: {run.step}", one("wall"),
        f"{shown(min(walls))}–{shown(max(walls))}", shown(bare), one("client_cpu"),
        one("server_cpu"), one("peak", 1e6), one("wal", 1e6),
        MISSING if written is None else f"{written:,.0f}", one("disk", 1e6), str(len(walls)),
    ]  # fmt: skip


def starts(results: Results) -> str:
    found = [run for run in results.runs if run.group == "start-up"]
    return table(
        ("command", "wall s", "CPU s", "peak MB"),
        (
            [f"`callflow {run.step}`", shown(results.middle(run, "wall")),
             shown(results.middle(run, "client_cpu")), shown(results.middle(run, "peak"), 1e6)]
            for run in found
        ),
    )  # fmt: skip


def provider(results: Results) -> str:
    """Return the provider's share of the wall time, and the cost of the provider that was used."""
    rows = []
    for step in (FIRST, QUIET):
        found = model.share(results, step)
        pages, share, long = found or (0, None, None)
        wall = results.middle(mine("paced", step), "wall")
        rows.append((step, f"{pages:,}", shown(wall), percent(share), percent(long)))
    cost = [
        line["provider_cpu"] / line["wall"]
        for line in results.lines
        if line.get("provider_cpu") is not None and line["wall"] > 1
    ]
    said = (
        f"\nThe process that serves the pages took {statistics.median(cost) * 100:.1f} % of a core"
        f" in the median run, {max(cost) * 100:.1f} % at most.\n"
        if cost
        else ""
    )
    head = ("run", "pages", "wall s", "the provider's share", "the same of 1,000 pages, derived")
    return table(head, iter(rows)) + said


def costs(results: Results) -> str:
    """Return the cost model of Twilio channels."""
    rows = []
    for what, figure, unit in (
        ("wall time, s", "wall", 1.0),
        ("client CPU, s", "client_cpu", 1.0),
        ("Postgres CPU, s", "server_cpu", 1.0),
        ("WAL, MB", "wal", 1e6),
        ("on disk, MB", "disk", 1e6),
        ("requests", "requests", 1.0),
    ):
        cells = []
        for step in (FIRST, QUIET):
            found = None if figure == "disk" and step == QUIET else model.growth(
                results, step, figure)  # fmt: skip
            each = found and found.each * 1_000_000
            cells += [shown(found and found.fixed, unit), shown(each, unit),
                      percent(found and found.off)]  # fmt: skip
        changes = model.per_change(results, ALL, float, figure)
        rows.append((what, *cells, shown(changes and changes * 1_000_000, unit)))
    head = ("", "first load: fixed", "per million rows", "off by at most",
            "nothing changed: fixed", "per million rows", "off by at most",
            "added per million changed rows")  # fmt: skip
    return table(head, iter(rows))


def limits(results: Results) -> str:
    """Return what follows from the cost model: where one machine ends."""
    accounts = model.PACE * model.PAGE
    rows: list[tuple[str, str]] = []
    for step in (FIRST, QUIET):
        wall, client, server = (
            model.growth(results, step, figure) for figure in ("wall", "client_cpu", "server_cpu")
        )
        if wall and wall.each:
            speed = 1 / wall.each
            rows += [
                (f"{step}: rows per second that one process loads", f"{speed:,.0f}"),
                (f"{step}: accounts at {model.PACE:g} full pages a second that keep it busy",
                 shown(speed / accounts)),
                (f"{step}: million rows in eight hours", shown(speed * model.NIGHT, 1e6)),
                (f"{step}: cores that are busy meanwhile, with the client / with Postgres",
                 joined([line and line.each / wall.each for line in (client, server)])),
            ]  # fmt: skip
    rows.append(("million rows of one account in eight hours, at that pace",
                 shown(accounts * model.NIGHT, 1e6)))  # fmt: skip
    memory = model.per_run(results, FIRST)
    if memory:
        one, more = memory
        rows.append(("peak memory of one run, and of each further one at the same time, MB",
                     f"{shown(one, 1e6)}, {shown(more, 1e6)}"))  # fmt: skip
        rows.append(("peak memory of 32 runs at once, MB", shown(one + 31 * more, 1e6)))
    disk = model.growth(results, FIRST, "disk")
    if disk:
        rows.append(("million channels in 100 GB, without history", shown(100e9 / disk.each, 1e6)))
    wal = model.per_change(results, ALL, float, "wal")
    if wal is not None:
        rows.append(("WAL of a changed row, bytes", f"{wal:,.0f}"))
    return table(("limit", "computed"), iter(rows))


PARTS: dict[str, Callable[[Results], str]] = {
    "machine": described,
    "summary": summary,
    "runs": runs,
    "starts": starts,
    "provider": provider,
    "costs": costs,
    "limits": limits,
}
