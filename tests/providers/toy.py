"""A provider that is declared in this file alone: no file of etl/ names it.

To add a provider, write what is here: the settings of a source, the tables, how the list is
requested, and an emulator. Its list has children and a count, but no modification time.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field
from sqlalchemy import MetaData

from etl.config.settings import Source
from etl.config.values import Rate, Secret, WebUrl, Word
from etl.errors import ContractError, MissingError
from etl.extract.answer import Answer
from etl.extract.http import Http, Seam, Sign
from etl.extract.page import EVERYTHING, Lookup, Page, ScanRequest
from etl.extract.paging import CursorList, Envelope, count, look_up, pages
from etl.extract.verdict import Judge, judge_status
from etl.providers.declare import Provider, Stream
from etl.sandbox.exchange import Request, Response, json_response
from etl.sandbox.faults import Fault
from etl.sandbox.store import Cursor, Store, Ticket, Tickets
from etl.sandbox.wire import Clock
from etl.transform.tree import tree
from etl.warehouse.tables import KEY, TEXT, current, family, field, given
from tests.postgres import ask

# -- the declaration ------------------------------------------------------------------------------

METADATA = MetaData()

menus = current(
    "toy.menus",
    "Menus that callers hear.",
    field("menu_id", KEY, "Id of the menu."),
    field("title", TEXT, "Title."),
    keys=1,
    record="menus[]",
    metadata=METADATA,
)

options = current(
    "toy.options",
    "Keys that callers can press.",
    given("menu_id", KEY, "menus[].menu_id: the menu that the option belongs to."),
    field("digit", KEY, "The key."),
    field("target", TEXT, "Where it leads."),
    keys=2,
    record="menus[].options[]",
    parent=menus,
    metadata=METADATA,
)


class ToySource(Source):
    """A tenant of the toy."""

    account: ClassVar[str] = "tenant"

    provider: Literal["toy"] = "toy"
    tenant: Word = Field(description="the tenant's name")
    token: Secret = Field(description="the tenant's token")
    base_url: WebUrl = "https://toy.example.com"
    requests_per_second: Rate = 5.0


def authenticate(source: ToySource, seam: Seam) -> tuple[Sign, Judge]:
    headers = {"Authorization": f"Bearer {source.token.get_secret_value()}"}
    return lambda method, url, body: headers, judge


def judge(answer: Answer) -> None:
    if answer.status == 404:
        raise MissingError(answer.said)
    judge_status(answer)


def _request(http: Http, cursor: str | None) -> tuple[str, dict[str, str]]:
    return "/menus", {"cursor": cursor} if cursor else {}


def _read(body: dict[str, Any], cursor: str | None, where: str) -> Envelope:
    rows, following = body.get("menus"), body.get("next")
    if not isinstance(rows, list) or not (following is None or isinstance(following, str)):
        raise ContractError("the answer is no page of menus", where=where)
    return Envelope(rows, following, total=count(body.get("total")))


MENUS = CursorList(_request, _read, records=("menus",), id_member="menu_id")


def menu_pages(http: Http, ask: ScanRequest = EVERYTHING) -> Iterator[Page]:
    return pages(http, MENUS)


def look_up_menu(http: Http, key: tuple[str, ...]) -> Lookup:
    return look_up(http, key, path="/menus/{}", members=("menu_id",), provider="Toy", noun="menu")


def probe(http: Http, ask: ScanRequest = EVERYTHING) -> str:
    return f"{http.call('GET', '/menus')['total']} menus"


TOY = Provider(
    name="toy",
    title="Toy",
    comment="The toy as it is now.",
    settings=ToySource,
    setup="",
    names=("menus",),
    declared=lambda: (
        Stream(
            name="menus",
            tables=family(menus),
            auth=authenticate,
            pages=menu_pages,
            transform=tree(menus, noun="menu"),
            look_up=look_up_menu,
            probe=probe,
            modified=None,
        ),
    ),
)


# -- the emulator ---------------------------------------------------------------------------------


class Toy:
    """State and behaviour of one tenant: `menus` by menu_id; those in `unlisted` have no row.

    `lists_options`  whether the list holds the menus whole, or their options come one by one only.
    `answers`        menu_id → what a request for this one menu gets instead of it.
    """

    PAGE = 4
    token = "toy-token-of-this-test"

    def __init__(self) -> None:
        self.url = ""
        self.clock = Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque()
        self.errors: list[Exception] = []
        self.menus = Store("menu_id", "changed", str, threading.RLock())
        self.unlisted: set[str] = set()
        self.lists_options = True
        self.answers: dict[str, Response] = {}
        self._tickets = Tickets()

    def handle(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return json_response(401, {"error": "wrong token"})
        if request.path == "/menus":
            return self._list(request.params.get("cursor", ""))
        menu_id = request.path.removeprefix("/menus/")
        if menu_id in self.answers:
            return self.answers[menu_id]
        row = self.menus.find(menu_id)
        return json_response(404, {"error": "no such menu"}) if row is None else Response(200, row)

    def _list(self, token: str) -> Response:
        ticket = self._tickets.find(token, "menus") if token else Ticket("menus", Cursor())
        if ticket is None:
            return json_response(400, {"error": "wrong cursor"})
        rows, following, total = self.menus.page(
            "keyset",
            ticket.cursor,
            self.PAGE,
            wanted=lambda menu: menu["menu_id"] not in self.unlisted,
        )
        next_token = None
        if following is not None:
            next_token = self._tickets.give(f"after-{rows[-1].hex()}", Ticket("menus", following))
        menus = [msgspec.json.decode(row) for row in rows]
        if not self.lists_options:
            menus = [{name: menu[name] for name in ("menu_id", "title")} for menu in menus]
        return json_response(200, {"menus": menus, "next": next_token, "total": total})


def menu(number: int) -> dict[str, Any]:
    return {
        "menu_id": f"menu-{number:02}",
        "title": f"Menu {number}",
        "options": [{"digit": digit, "target": f"queue-{number}-{digit}"} for digit in "12"],
    }


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the current tables hold."""
    return {
        "menus": ask(url, "SELECT source, menu_id, title, extra FROM toy.menus ORDER BY 2"),
        "options": ask(url, "SELECT menu_id, digit, target FROM toy.options ORDER BY 1, 2"),
    }


def expected(toy: Toy) -> dict[str, list[tuple[Any, ...]]]:
    """Return what they should hold."""
    return {
        "menus": [("toy_test", m["menu_id"], m["title"], None) for m in toy.menus.records()],
        "options": [
            (m["menu_id"], option["digit"], option["target"])
            for m in toy.menus.records()
            for option in m["options"]
        ],
    }


def versions(url: str, column: str, view: str) -> list[tuple[Any, ...]]:
    """Return the versions of menu-03's rows, the oldest first."""
    query = f"SELECT {column}, is_current FROM {view} WHERE menu_id = 'menu-03' ORDER BY 2, 1"
    return ask(url, query)
