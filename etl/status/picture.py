"""A flow as SVG, laid out by Graphviz, and as a page of HTML with nothing from elsewhere. Pure.

Graphviz itself is an argument: a function that lays out DOT, its language, and returns SVG.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from unicodedata import east_asian_width

from etl.status.drawing import (
    LOOP,
    UNREACHABLE,
    Drawing,
    Step,
    fold,
    headline,
    kind,
    short,
    some,
    words,
)

_INK, _SOFT, _RULE, _BAD, _LOOP, _WAY = (
    "#191c20", "#5a626c", "#8d959e", "#b3231b", "#6a3fb5", "#1d6b42",
)  # fmt: skip
_WIDTH, _LINES = 26, 3
"""Columns of a line in a box, and lines of a name."""
_DASHED = 'style="rounded,filled,dashed"'
_LOOKS = {
    "address": ("reaches this flow", f'fillcolor="#ffffff" color="{_WAY}" shape=oval style=filled'),
    "start": ("start", f'fillcolor="#ddefe4" color="{_WAY}" penwidth=1.6'),
    "step": ("", f'fillcolor="#ffffff" color="{_RULE}"'),
    "loop": ("on a loop", f'fillcolor="#f4f0fc" color="{_LOOP}"'),
    "end": ("ends here", f'fillcolor="#e9e7e1" color="{_RULE}"'),
    "unreachable": ("unreachable", f'fillcolor="#f4f4f3" color="{_RULE}" {_DASHED}'),
    "bad": ("something is wrong", f'fillcolor="#fdeceb" color="{_BAD}" penwidth=1.6'),
    "missing": ("nothing follows", f'fillcolor="#ffffff" color="{_BAD}" {_DASHED}'),
}
"""What a box can be → its word in the legend, and its attributes in DOT."""
_AT_ARROWS = ("open_event", "broken_link")
"""Findings that an arrow to a missing step shows, and no box."""


# --- DOT -----------------------------------------------------------------------------------------
def dot(drawing: Drawing) -> str:
    """Return the flow in DOT."""
    looks = {step.id: look(drawing, step) for step in drawing.steps}
    body = [*_addresses(drawing), *_steps(drawing, looks), *_arrows(drawing)]
    title = _html(fold(drawing.title, 60, 2, _columns), "<BR/>")
    findings = ", ".join(map(words, drawing.findings))
    if findings:
        title += f'<BR/><FONT POINT-SIZE="10" COLOR="{_BAD}">{_html([short(findings, 80)])}</FONT>'
    lines = [
        "digraph flow {",
        'graph [rankdir=TB nodesep=0.35 ranksep=0.45 fontname="Helvetica,Arial,sans-serif"'
        f' fontcolor="{_INK}" bgcolor=white pad=0.2 labelloc=b labeljust=l'
        f" label=<{_legend(drawing, looks)}>]",
        f'node [shape=box style="rounded,filled" fontname="Helvetica,Arial,sans-serif" fontsize=12'
        f' fontcolor="{_INK}" margin="0.16,0.08"]',
        'edge [fontname="Helvetica,Arial,sans-serif" fontsize=10'
        f' fontcolor="{_SOFT}" color="{_RULE}" arrowsize=0.7]',
        "subgraph cluster_flow { graph [peripheries=0 labelloc=t labeljust=l fontsize=16"
        f" label=<{title or ' '}>]",
        *body,
        "}",
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


def look(drawing: Drawing, step: Step) -> str:
    """Return what the box of a step shows first: a key of the legend."""
    if UNREACHABLE in step.findings:
        return "unreachable"
    if set(step.findings) - {LOOP, *_AT_ARROWS}:
        return "bad"
    if step.id == drawing.start:
        return "start"
    if LOOP in step.findings:
        return "loop"
    return "step" if drawing.arrows[step.id] else "end"


def _addresses(drawing: Drawing) -> Iterator[str]:
    for number, address in enumerate(some(drawing.addresses), 1):
        text = _html(fold(address, _WIDTH, 1, _columns))
        yield f"a{number} [{_LOOKS['address'][1]} fontsize=11 label=<{text}>]"
        if drawing.start is not None:
            yield f'a{number} -> n{drawing.numbers[drawing.start]} [color="{_WAY}"]'


def _steps(drawing: Drawing, looks: Mapping[str, str]) -> Iterator[str]:
    for step, number in zip(drawing.steps, drawing.numbers.values(), strict=True):
        dim = _SOFT if looks[step.id] == "unreachable" else _INK
        name = fold(headline(step), _WIDTH, _LINES, _columns)
        lines = [f"<B>{_html(name, '<BR/>')}</B>"]
        if word := kind(step):
            lines.insert(
                0, f'<FONT POINT-SIZE="9" COLOR="{_SOFT}">{_html([short(word, 40)])}</FONT>'
            )
        for finding in (each for each in step.findings if each not in _AT_ARROWS):
            colour, sign = (_LOOP, "↺ ") if finding == LOOP else (_BAD, "")
            colour = _SOFT if finding == UNREACHABLE else colour
            text = _html([short(sign + words(finding), 40)])
            lines.append(f'<FONT POINT-SIZE="9" COLOR="{colour}">{text}</FONT>')
        rows = "".join(f"<TR><TD>{line}</TD></TR>" for line in lines)
        label = f'<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}</TABLE>'
        yield f'n{number} [{_LOOKS[looks[step.id]][1]} fontcolor="{dim}" label=<{label}>]'


def _arrows(drawing: Drawing) -> Iterator[str]:
    stubs = 0
    for source, arrows in drawing.arrows.items():
        for arrow in arrows:
            target, colour, more = f"n{arrow.number}", _SOFT, ""
            if arrow.back:
                colour, more = _LOOP, f' color="{_LOOP}" style=dashed'
            if arrow.number is None:
                stubs += 1
                target, colour, more = f"x{stubs}", _BAD, f' color="{_BAD}"'
                missing = _html(fold(arrow.missing, _WIDTH, 2, _columns), "<BR/>")
                yield (
                    f"{target} [{_LOOKS['missing'][1]} fontsize=10"
                    f' fontcolor="{_BAD}" margin="0.1,0.04" label=<{missing}>]'
                )
            sign = "↺ " if arrow.back else ""
            text = fold(sign + arrow.events, 18, 4, _columns)
            said = _html([f" {line} " for line in text], "<BR/>")
            yield (
                f"n{drawing.numbers[source]} -> {target}"
                f' [label=<{said}> fontcolor="{colour}"{more}]'
            )


def _legend(drawing: Drawing, looks: Mapping[str, str]) -> str:
    """Return rows with a small box for each look that occurs, as a table of DOT."""
    there = set(looks.values())
    there |= {"address"} if drawing.addresses else set()
    if drawing.ends_open:
        there.add("missing")
    cells: list[str] = []
    for name, (word, style) in _LOOKS.items():
        if name in there and word:
            fill, line = re.findall(r"#\w{6}", style)[:2]
            sample = f'<TD BGCOLOR="{fill}" COLOR="{line}" BORDER="1" WIDTH="18"> </TD>'
            cells.append(sample + _small(word))
    if drawing.goes_back:
        sign = f'<TD><FONT POINT-SIZE="10" COLOR="{_LOOP}">↺</FONT></TD>'
        cells.append(sign + _small("goes back"))
    if not cells:
        return " "
    rows = ("".join(cells[at : at + 4]) for at in range(0, len(cells), 4))
    table = '<TABLE BORDER="0" CELLSPACING="4" CELLPADDING="2"><TR>'
    lines = (f'<TR><TD ALIGN="LEFT">{table}{row}</TR></TABLE></TD></TR>' for row in rows)
    return f'<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="0">{"".join(lines)}</TABLE>'


def _small(word: str) -> str:
    return f'<TD><FONT POINT-SIZE="10" COLOR="{_SOFT}">{word}  </FONT></TD>'


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def _html(lines: list[str], between: str = "") -> str:
    return between.join(escape(line) or " " for line in lines)


# --- SVG -----------------------------------------------------------------------------------------
def svg(drawing: Drawing, layout: Callable[[str], str]) -> str:
    """Return the flow as one SVG element; `layout` makes SVG of DOT.

    It refers to nothing outside. Who points at a box sees the whole name of its step.
    """
    drawn = layout(dot(drawing))
    drawn = re.sub(r"<!--.*?-->\s*", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    tips = {f"n{drawing.numbers[step.id]}": _tip(step) for step in drawing.steps}

    def title(found: re.Match[str]) -> str:
        text = tips.get(found[1])
        return f"<title>{escape(text)}</title>\n" if text else ""

    drawn = re.sub(r"<title>([^<]*)</title>\n?", title, drawn)
    name = escape(short(drawing.title, 200))
    return drawn.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def _tip(step: Step) -> str:
    more = ", ".join(filter(None, [kind(step), *map(words, step.findings)]))
    return short(headline(step), 500) + (f" ({short(more, 200)})" if more else "")


# --- HTML ----------------------------------------------------------------------------------------
_DARK = {
    "#ffffff": "#1c2126", _INK: "#e4e6e8", _SOFT: "#a3adb7", _RULE: "#6b757f", _BAD: "#ff8d82",
    _LOOP: "#b9a2f2", _WAY: "#6fc492", "#ddefe4": "#173325", "#f4f0fc": "#262038",
    "#e9e7e1": "#2b3138", "#f4f4f3": "#1a1e22", "#fdeceb": "#3a1f1d",
}  # fmt: skip
"""Each colour of the SVG → the one for dark pages."""
_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #191c20; --soft: #5a626c;
  --rule: #dddbd4; --bad: #b3231b; --raised: #fff; }
* { box-sizing: border-box; }
body { max-width: 82rem; margin: 0 auto; padding: 1rem clamp(.8rem, 2.5vw, 2rem) 2rem;
  background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .3rem 0; }
p { margin: .2rem 0; color: var(--soft); }
.bad { color: var(--bad); }
figure { margin: 1rem 0 1.6rem; padding: .6rem; overflow-x: auto; background: var(--raised);
  border: 1px solid var(--rule); border-radius: 6px; }
figure svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.graph > polygon:first-of-type, .cluster > polygon { fill: none; }
.cluster > text { display: none; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: .85rem; }
td:first-child { color: var(--soft); font-variant-numeric: tabular-nums; }
td:nth-child(3) { white-space: nowrap; }
td ul { list-style: none; margin: 0; padding: 0; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #111417; --ink: #e4e6e8; --soft: #a3adb7; --rule: #2c3238; --bad: #ff8d82;
    --raised: #15191d; }
}
"""


def dark_style(where: str) -> str:
    """Return rules of CSS that give the SVG in `where`, a selector, its colours on dark pages."""
    rules = "".join(
        f'  {where} [fill="{light}"] {{ fill: {colour}; }} {where} [stroke="{light}"]'
        f" {{ stroke: {colour}; }}\n"
        for light, colour in _DARK.items()
    )
    return f"@media (prefers-color-scheme: dark) {{\n{rules}}}\n"


def html(drawing: Drawing, svg: str) -> str:
    """Return a page with the flow's picture and a table of its steps, with nothing from elsewhere.

    `svg` is what the function of that name returned for the same drawing.
    """
    title = escape(short(drawing.title, 200)) or "Flow"
    reached = ", ".join(escape(short(each, 100)) for each in drawing.addresses)
    about = [f"<p>Reached by {reached}</p>\n" if reached else ""]
    if drawing.findings:
        found = escape(", ".join(map(words, drawing.findings)))
        about.append(f'<p class="bad">{found}</p>\n')
    width = re.search(r'<svg[^<>]* width="(\d+)pt"', svg)
    least = f' style="min-width: {int(width[1]) * 6 // 10}pt"' if width else ""
    rows = "".join(_row(drawing, step) for step in drawing.steps)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width">\n<meta name="referrer"'
        f' content="no-referrer">\n<title>{title}</title>\n'
        f"<style>{_STYLE}{dark_style('figure')}</style>\n"
        f"</head>\n<body>\n<h1>{title}</h1>\n{''.join(about)}"
        f"<figure>{svg.strip().replace('<svg', f'<svg{least}', 1)}</figure>\n"
        "<table>\n<thead><tr><th>#</th><th>step</th><th>type</th><th>what follows</th>"
        f"<th>findings</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</body>\n</html>\n"
    )


def _row(drawing: Drawing, step: Step) -> str:
    following = []
    for arrow in drawing.arrows[step.id]:
        said = f"{escape(short(arrow.events, 200))} {'↺' if arrow.back else '→'}"
        if arrow.number is None:
            to = f'<span class="bad">{escape(short(arrow.missing, 80))}</span>'
        else:
            name = headline(drawing.steps[arrow.number - 1])
            to = f"{arrow.number} {escape(short(name, 60))}"
        following.append(f"<li>{said} {to}</li>")
    cells = (
        str(drawing.numbers[step.id]),
        escape(short(headline(step), 500)),
        escape(short(step.step_type, 100)),
        f"<ul>{''.join(following)}</ul>" if following else "",
        escape(", ".join(map(words, step.findings))),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"
