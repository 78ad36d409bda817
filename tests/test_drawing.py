"""A flow drawn: as Mermaid, on a terminal, as SVG and as a page; with names that mean something."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
import termaid
import yaml
from rich.cells import cell_len

from etl.commands import drawing as drawn
from etl.errors import ConfigError
from etl.status import graphviz
from etl.status.drawing import Drawing, Link, Step, fold, mask, mask_numbers, mermaid, plain
from etl.status.picture import dot, html, svg

ROOT = Path(__file__).resolve().parents[1]

AWKWARD = (
    'a"b', "a\nb\r\nc", "]; x[", "a -->|b| c", "%% not a comment", "#quot; #35;", "&lt;b&gt; &amp;",
    "<script>alert(1)</script>", "</title></svg>", "`**bold**`", "1. item", "- item", "end",
    "style: #x;", "\\N \\l \\", "a|b", "A & B & C", ":::bad", "技术支持 – 贵宾专线", "שלום עולם",
    "مرحبا", "👩‍👩‍👧‍👦 🇩🇪 ☎️", "é", "ท่าน", "\x1b[31mred", "\x00", "\u202egnp.exe", "\ud800",
    "\uffff", "\ue000\ue001", "x" * 300, "w " * 200,
)  # fmt: skip
"""Names that mean something to one of the languages, or to a terminal."""

IVR = Drawing(
    "Hotline <North>",
    (
        Step("a", "INCOMING_CALL", "Start"),
        Step("b", "MENU", "Main menu", ("loop",)),
        Step("c", "QUEUE", "Sales", ("open_event",)),
        Step("d", "COLLECT", "Number?", ("dead_end",)),
        Step("e", "HANGUP", ""),
        Step("f", "PLAY", "Old greeting", ("unreachable",)),
        Step("g", "", "", ("broken_link",)),
    ),
    (
        Link("a", "ok", "b"),
        Link("b", "1", "c"),
        Link("b", "2", "d"),
        Link("b", "3", "g"),
        Link("b", "timeout", "b"),
        Link("b", "invalid", "b"),
        Link("c", "answered", "e"),
        Link("c", "error", None),
        Link("f", "done", "e"),
        Link("g", "failed", "gone"),
        Link("no such step", "x", "a"),
    ),
    ("…56", "…@example.com"),
)


def chain(length: int) -> Drawing:
    """Steps in a row; the last one leads back to the second."""
    steps = tuple(Step(f"s{n}", "PLAY", f"Step {n}") for n in range(length))
    links = tuple(Link(f"s{n}", "ok", f"s{n + 1}") for n in range(length - 1))
    return Drawing("Chain", steps, (*links, Link(f"s{length - 1}", "again", "s1")))


def menus(length: int, seed: int) -> Drawing:
    """Menus of menus, some of which lead on to others and back."""
    dice = Random(seed)
    steps = tuple(Step(f"s{n}", "MENU", f"Step {n}") for n in range(length))
    tree = [Link(f"s{dice.randrange(max(0, n - 4), n)}", f"{n}", f"s{n}") for n in range(1, length)]
    others = [Link(dice.choice(steps).id, "x", dice.choice(steps).id)
              for _ in range(length // 4)]  # fmt: skip
    return Drawing("Menus", steps, (*tree, *others))


def named(name: str) -> Drawing:
    """A flow in which everything has that name."""
    steps = (Step("1", name, name), Step("2", "", name), Step("3", "", ""))
    links = (Link("1", name, "2"), Link("2", name, name), Link("2", "x", "3"), Link("3", "", None))
    return Drawing(name, steps, links, (name,), (name,))


# --- what follows from the values ----------------------------------------------------------------
def test_the_start_is_the_reachable_step_that_nothing_leads_to() -> None:
    assert IVR.start == "a"
    steps = (Step("1", "A", ""), Step("2", "B", ""))
    assert Drawing("", steps, (Link("2", "", "1"),)).start == "2"
    assert Drawing("", steps, (Link("2", "", "1"), Link("1", "", "2"))).start == "1"
    assert Drawing("", (Step("1", "", "", ("unreachable",)),)).start is None


def test_an_arrow_takes_all_events_to_one_step_and_knows_what_it_does() -> None:
    one, two, three, again = IVR.arrows["b"]
    assert [arrow.events for arrow in (one, two, three)] == ["1", "2", "3"]
    assert (again.events, again.number, again.back) == ("timeout, invalid", 2, True)
    assert not any(arrow.back for arrow in (one, two, three))
    answered, error = IVR.arrows["c"]
    assert (answered.number, answered.missing) == (5, "")
    assert (error.number, error.missing) == (None, "nothing")
    assert [arrow.missing for arrow in IVR.arrows["g"]] == ["no step gone"]


def test_a_loop_through_thousands_of_steps_has_one_arrow_back() -> None:
    backs = [(source, arrow) for source, arrows in chain(5000).arrows.items()
             for arrow in arrows if arrow.back]  # fmt: skip
    assert [(source, arrow.number) for source, arrow in backs] == [("s4999", 2)]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("+49 (0)30 123456", "…56"),
        ("whatsapp:+14155551234", "…34"),
        ("0571****1234", "…34"),
        ("4711", "…11"),
        ("anna.b@example.com", "…@example.com"),
        ("Anna <anna@sub.example.com>", "…@sub.example.com"),
        ("sip:+4930123456@sbc.example.com:5061", "…@sbc.example.com"),
        ("a@b@example.com", "…@example.com"),
        ("Support web chat 2", "Support web chat 2"),
        ("", ""),
    ],
)
def test_an_address_is_masked(address: str, shown: str) -> None:
    assert mask(address) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Call +44 (20) 7946-0123 now", "Call …23 now"),
        ("0571-87654321", "…21"),
        ("电话13812345678转2", "电话…78转2"),
        ("sip:+442079460123@sip.example.com", "sip:…23@sip.example.com"),
        ("a 1234567, b 7654321.", "a …67, b …21."),
        ("138****1234", "…34"),
        ("tel2079460", "tel…60"),
        ("+44\u2011207\u00a0946", "…46"),
        ("٠١٢٣٤٥٦٧", "…٦٧"),
        ("press 123456", "press 123456"),
        ("1, 2, 3, 4, 5, 6, 7", "1, 2, 3, 4, 5, 6, 7"),
        ("open 09:00-17:30", "open 09:00-17:30"),
        ("", ""),
    ],
)
def test_numbers_in_a_text_are_masked_from_seven_digits_on(text: str, shown: str) -> None:
    assert mask_numbers(text) == shown


def test_lines_are_folded_between_words_and_cut() -> None:
    assert fold("one two three", 7, 3, len) == ["one two", "three"]
    assert fold("abcdefghij", 4, 3, len) == ["abcd", "efgh", "ij"]
    assert fold("abcdefghij kl", 4, 2, len) == ["abcd", "efg…"]
    assert fold("技术支持", 5, 2, cell_len) == ["技术", "支持"]
    assert fold("", 5, 2, len) == [""]


# --- Mermaid -------------------------------------------------------------------------------------
def test_mermaid_has_every_step_arrow_and_finding() -> None:
    lines = mermaid(IVR).splitlines()
    assert lines[:4] == ["---", 'title: "Hotline <North>"', "---", "flowchart TD"]
    assert '  n2["MENU<br/>Main menu<br/>loop"]' in lines
    assert '  n5["HANGUP"]' in lines
    assert "  a1 --> n1" in lines
    assert '  n2 -.->|"timeout, invalid"| n2' in lines
    assert '  x1(["nothing"]):::broken' in lines
    assert '  n3 -->|"error"| x1' in lines
    assert '  x2(["no step gone"]):::broken' in lines
    assert "  class n6 unreachable" in lines


@pytest.mark.parametrize("name", AWKWARD)
def test_mermaid_reads_any_name_back(name: str) -> None:
    """Termaid is a reader of Mermaid that we did not write."""
    graph = termaid.parse(mermaid(named(name)))
    shown = plain(name)
    shown = shown if len(shown) <= 80 else f"{shown[:79].rstrip()}…"
    assert yaml.safe_load(mermaid(named(name)).split("---\n")[1]) == {"title": shown}
    labels = {step: node.label for step, node in graph.nodes.items()}
    assert labels["n1"] == shown
    assert labels["a1"].strip() == shown.strip()
    arrows = [(edge.source, edge.target, edge.label) for edge in graph.edges]
    assert ("n1", "n2", shown) in arrows
    assert len(arrows) == 5
    assert set(labels) == {"a1", "n1", "n2", "n3", "x1", "x2"}


# --- the terminal --------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", AWKWARD)
def test_a_terminal_shows_any_name_in_boxes_that_close(name: str) -> None:
    shown = drawn.terminal(named(name), 80)
    assert "As a list" not in shown
    assert shown.isprintable() or set(filter(lambda c: not c.isprintable(), shown)) <= {
        "\n", "\u200d", "\u200c"
    }  # fmt: skip
    lines = shown.splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    top = next(line for line in lines if line.startswith("┌") or "┌" in line)
    right = cell_len(top[: top.index("┐")])
    box = lines[lines.index(top) : lines.index(top) + 3]
    for line in box:
        assert any(cell_len(line[:at]) == right for at, sign in enumerate(line) if sign in "┐│├"), (
            shown
        )
    assert " ".join(fold(name, 22, 1, cell_len)).rstrip("…") in shown


@pytest.mark.slow
def test_a_terminal_draws_what_calls_can_reach_and_lists_the_rest() -> None:
    picture, rest = drawn.terminal(IVR, 80).split("No way leads to:\n")
    for words in ("2 MENU", "Main menu", "timeout, inva… ↺ 2", "1 → 3", "error ✗ nothing",
                  "✗ dead end", "failed ✗ no step gone", "reached by …56, …@example.com",
                  "Hotline <North>", "5 HANGUP"):  # fmt: skip
        assert words in picture
    assert "┌" in picture
    assert "Old greeting" not in picture
    assert rest == "6. Old greeting (PLAY) [unreachable]\n     done → 5. HANGUP\n"


@pytest.mark.slow
def test_a_drawing_that_is_too_wide_is_a_list_and_says_so() -> None:
    shown = drawn.terminal(IVR, 40)
    assert "The drawing would be wider than 40" in shown
    assert "┌" not in shown
    assert "2. Main menu (MENU) [loop]\n     1 → 3. Sales\n" in shown
    assert "     timeout, invalid ↺ 2. Main menu\n" in shown
    assert "     error → nothing\n" in shown
    assert all(cell_len(line) <= 40 for line in shown.splitlines())


def test_a_large_flow_is_a_list_and_says_so() -> None:
    shown = drawn.terminal(chain(5000), 80)
    assert "5,000 steps are too many for a drawing. As a list:\n" in shown
    assert {f"{n + 1}. Step {n} (PLAY)" for n in range(5000)} <= set(shown.splitlines())
    assert "     again ↺ 2. Step 1\n" in shown


@pytest.mark.slow
def test_forty_steps_with_loops_are_drawn_or_listed(seed: int) -> None:
    for flow in (menus(drawn.MOST_STEPS, seed), chain(drawn.MOST_STEPS)):
        for width in (80, 1000):
            shown = drawn.terminal(flow, width)
            assert all(cell_len(line) <= width for line in shown.splitlines())
            assert all(step.name in shown for step in flow.steps)
    assert "┌" in drawn.terminal(chain(drawn.MOST_STEPS), 80)


def test_a_flow_without_steps_says_so() -> None:
    empty = Drawing("Empty", (), findings=("no_start",))
    assert drawn.terminal(empty, 80) == "Empty\nno start\n\nIt has no steps.\n"
    assert mermaid(empty) == '---\ntitle: "Empty"\n---\nflowchart TD\n'


@pytest.mark.slow
def test_where_nothing_is_reachable_all_is_drawn() -> None:
    steps = (Step("1", "PLAY", "One", ("unreachable",)), Step("2", "PLAY", "Two", ("unreachable",)))
    shown = drawn.terminal(Drawing("x", steps, (Link("1", "ok", "2"),)), 80)
    assert "┌" in shown
    assert "One" in shown


# --- SVG -----------------------------------------------------------------------------------------
def texts(picture: str) -> str:
    """Every text in the picture, in one line."""
    return " ".join("".join(each.itertext()) for each in ET.fromstring(picture).iter()
                    if each.tag.endswith("}text"))  # fmt: skip


@pytest.mark.slow
def test_an_svg_shows_steps_events_and_what_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    picture = graphviz.svg(IVR)
    assert capfd.readouterr() == ("", "")
    shown = texts(picture)
    for words in ("Hotline <North>", "Main menu", "↺ loop", ["↺ timeout", " invalid"][0],
                  "nothing", "no step gone", "dead end", "unreachable", "…56",
                  "reaches this flow", "goes back", "ends here"):  # fmt: skip
        assert words in shown, words
    assert "Main menu (MENU, loop)" in picture  # for who points at the box
    assert "Step" not in shown


@pytest.mark.slow
def test_the_legend_has_only_what_occurs() -> None:
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    shown = texts(graphviz.svg(Drawing("x", (Step("1", "PLAY", "One"), Step("2", "PLAY", "Two")),
                                    (Link("1", "ok", "2"),))))  # fmt: skip
    assert "start" in shown
    for words in ("loop", "goes back", "unreachable", "wrong", "nothing follows", "reaches"):
        assert words not in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", AWKWARD)
def test_an_svg_shows_any_name_and_refers_to_nothing_outside(name: str) -> None:
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    picture = graphviz.svg(named(name))
    root = ET.fromstring(picture)
    first = fold(name, 10, 2, cell_len)[0].rstrip("…")
    assert first in texts(picture).replace("\xa0", " ")
    assert {each.tag.rpartition("}")[2] for each in root.iter()} <= {
        "svg", "g", "title", "text", "path", "polygon", "ellipse", "polyline"
    }  # fmt: skip
    assert not any("href" in key or key.startswith("on") for each in root.iter()
                   for key in each.attrib)  # fmt: skip
    assert set(re.findall(r"https?://[^\"]+", picture)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
    }  # fmt: skip
    assert "<!" not in picture


def test_without_pygraphviz_the_error_says_what_to_install(tmp_path: Path) -> None:
    """A Python that has all packages of this one but that."""
    site = Path(termaid.__file__).parents[1]
    for each in site.iterdir():
        if not each.name.startswith("pygraphviz"):
            (tmp_path / each.name).symlink_to(each)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from etl.status.graphviz import graphviz\n"
        "from etl.errors import ConfigError\n"
        "try: graphviz('digraph {}')\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    expected = "picture: pygraphviz is not installed → pip install '/path/to/callflow[pictures]'\n"
    assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: graphviz.graphviz("digraph {"), "Graphviz failed: .* → pip install --force"),
        (lambda: graphviz.graphviz("digraph {}", seconds=0), "no layout within 0 s → take the"),
        (lambda: graphviz.svg(chain(501)), "501 steps are too many for a picture .* → take the"),
    ],
)
def test_a_picture_that_cannot_be_drawn_says_what_to_do(
    draw: Callable[[], str], words: str
) -> None:
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    with pytest.raises(ConfigError) as error:
        draw()
    assert re.search(words, str(error.value))
    assert "Traceback" not in str(error.value)


def test_what_the_system_lacks_is_not_looked_for_in_the_package() -> None:
    missing = "ImportError: libXext.so.6: cannot open shared object file: No such file or directory"
    for way in (graphviz.repair(missing, 1), graphviz.repair("it says nothing", -11)):
        assert "apt install libglib2.0-0 libxext6 libxrender1 libthai-data" in way
        assert "pip" not in way
    assert graphviz.repair("SyntaxError", 1).startswith("pip install --force-reinstall")


# --- HTML ----------------------------------------------------------------------------------------
class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", AWKWARD)
def test_a_page_escapes_any_name_and_asks_for_nothing(name: str) -> None:
    page = Page(html(named(name), '<svg width="100pt"></svg>'))
    tags = {tag for tag, _ in page.elements}
    assert tags == {
        "html", "head", "meta", "title", "style", "body", "h1", "p", "figure", "svg",
        "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "span",
    }  # fmt: skip
    for _, attributes in page.elements:
        assert not {"src", "href"} & set(attributes)
        assert not any(key.startswith("on") for key in attributes)
    policy = next(a["content"] for t, a in page.elements if "http-equiv" in a)
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert plain(name)[:40].rstrip() in page.text
    assert len([tag for tag, _ in page.elements if tag == "tr"]) == 4


def test_the_table_says_what_follows_and_what_was_found() -> None:
    page = html(IVR, "<svg/>")
    assert "<td>Main menu</td><td>MENU</td>" in page
    assert "<li>1 → 3 Sales</li>" in page
    assert "<li>timeout, invalid ↺ 2 Main menu</li>" in page
    assert '<li>failed → <span class="bad">no step gone</span></li>' in page
    assert "<td>dead end</td>" in page
    assert "<h1>Hotline &lt;North&gt;</h1>" in page


def test_a_layout_is_an_argument() -> None:
    given = []

    def layout(text: str) -> str:
        given.append(text)
        return '<?xml?>\n<!DOCTYPE svg "x">\n<!-- x -->\n<svg width="1pt"><title>n2</title></svg>'

    assert svg(IVR, layout) == (
        '<svg role="img" aria-label="Hotline &lt;North&gt;" width="1pt">'
        "<title>Main menu (MENU, loop)</title>\n</svg>"
    )
    assert given == [dot(IVR)]
