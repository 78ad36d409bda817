"""Every declared provider keeps the contract; each thing that one can forget is found."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field
from sqlalchemy import MetaData

from etl.config.settings import Source
from etl.config.values import Rate, Secret, WebUrl
from etl.extract.http import Http, Seam
from etl.extract.page import Lookup, Page, ScanRequest, Wanted
from etl.providers import PROVIDERS
from etl.providers.catalog import TABLES
from etl.providers.declare import Detail, Provider, Stream
from etl.sandbox.server import EMULATORS
from etl.transform.tree import tree
from etl.warehouse.model.part import Part
from etl.warehouse.tables import KEY, TEXT, TIME, current, family, field, given
from tests.providers.contract import RECORDED, Declared, omissions, unemulated


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.name)
def test_nothing_is_forgotten(provider: Provider, tmp_path: Path) -> None:
    assert list(omissions(Declared(provider, RECORDED, tmp_path))) == []


def test_no_name_is_given_twice() -> None:
    """The staging tables of a source share one schema, so those of a provider must differ."""
    assert len({each.name for each in PROVIDERS}) == len(PROVIDERS)
    for each in PROVIDERS:
        assert len({stream.name for stream in each.streams}) == len(each.streams)
        names = [table.name for stream in each.streams for table in stream.tables]
        assert len(set(names)) == len(names)
    assert len(TABLES) == sum(len(s.tables) for each in PROVIDERS for s in each.streams)


def test_the_sandbox_emulates_every_stream_in_the_order_of_the_providers() -> None:
    emulated = {each.name: each().records() for each in EMULATORS}
    assert list(unemulated(PROVIDERS, emulated)) == []
    assert list(emulated) == [each.name for each in PROVIDERS]


# --- a provider that forgets nothing, and what it may forget -------------------------------------
class ToySource(Source):
    """An account of a provider that exists here only."""

    account: ClassVar[str] = "user"
    scopes: ClassVar[str | None] = None
    logins: ClassVar[tuple[tuple[str, str], ...]] = (("user", "password"),)

    provider: Literal["toy"] = "toy"
    user: str = Field(description="the user's name", examples=["me"])
    password: Secret = Field(description="the user's password")
    base_url: WebUrl = "https://toy.example"
    requests_per_second: Rate = 5.0


METADATA = MetaData()
things = current(
    "toy.things",
    "Things.",
    field("id", KEY, "Id."),
    field("name", TEXT, "Name."),
    field("changed", TIME, "When it was changed last."),
    keys=1,
    record="things[]",
    metadata=METADATA,
)
parts = current(
    "toy.parts",
    "Parts of things.",
    given("id", KEY, "things[].id: the thing."),
    field("part", KEY, "Name of the part."),
    keys=2,
    record="things[].parts[]",
    parent=things,
    metadata=METADATA,
)
bare = current(
    "elsewhere.bare", "", given("id", KEY, ""), keys=1, record="things[]", metadata=METADATA
)


def pages(http: Http, request: ScanRequest) -> Iterator[Page]:
    raise NotImplementedError


def look_up(http: Http, key: tuple[Any, ...]) -> Lookup:
    raise NotImplementedError


def fetch(http: Http, wanted: Wanted) -> Any:
    raise NotImplementedError


def probe(http: Http, request: ScanRequest) -> str:
    raise NotImplementedError


def auth(source: ToySource, seam: Seam) -> Any:
    raise NotImplementedError


THINGS = Stream(
    name="things",
    tables=family(things),
    auth=auth,
    pages=pages,
    transform=tree(things, noun="thing"),
    look_up=look_up,
    probe=probe,
    modified="changed",
    parts=(
        Part("flows", things, {"flow_id": "r.id", "name": "r.name", "modified_at": "r.changed"}),
    ),
)
TOY = Provider(
    name="toy",
    title="Toy",
    comment="Toy as it is now.",
    settings=ToySource,
    setup="Nowhere.",
    names=("things",),
    declared=lambda: (THINGS,),
    credentials="a user and a password",
    rights="none",
    example="""
[sources.toy_one]
provider = "toy"
user = "…"
password = "…"
base_url = "https://toy.example"
requests_per_second = 5
""",
)
ANSWER = {"things": [{"id": "a", "name": "A", "changed": "2026-01-01T00:00:00Z",
                      "parts": [{"part": "p"}]}]}  # fmt: skip


def forgotten(tmp_path: Path, provider: Provider, answer: Any = ANSWER) -> list[str]:
    (tmp_path / "toy").mkdir()
    if answer is not None:
        (tmp_path / "toy" / "things.json").write_text(json.dumps(answer))
    return list(omissions(Declared(provider, tmp_path, tmp_path)))


def test_a_provider_declared_in_a_test_alone_keeps_the_contract(tmp_path: Path) -> None:
    assert forgotten(tmp_path, TOY) == []


def stream(**changes: Any) -> Provider:
    made = replace(THINGS, **changes)
    return replace(TOY, names=(made.name,), declared=lambda: (made,))


def part(**changes: Any) -> Provider:
    return stream(parts=(replace(THINGS.parts[0], **changes),))


def model(**changes: Any) -> Provider:
    """Return a provider whose settings differ in class variables or, with a type, in keys."""
    kinds = {name: value[0] for name, value in changes.items() if isinstance(value, list)}
    members = {name: value[1] if name in kinds else value for name, value in changes.items()}
    every = {"__annotations__": kinds, "__module__": __name__, **members}
    settings: Any = type("ToySource", (ToySource,), every)
    return replace(TOY, settings=settings)


def example(old: str, new: str) -> Provider:
    return replace(TOY, example=TOY.example.replace(old, new))


OMISSIONS: list[tuple[Provider, str]] = [
    (replace(TOY, setup=""), "toy: no setup → add `setup` to its Provider"),
    (replace(TOY, rights=" "), "toy: no rights → add `rights` to its Provider"),
    (replace(TOY, names=(), declared=tuple), "toy: no stream → add one to `declared`"),
    (replace(TOY, names=("thing",)), "toy: `names` are not those of its streams → things"),
    (example('password = "…"', ""), "toy: its example is no source (1 problem"),
    (example('password = "…"', ""), "toy: its example lacks password → add it to `example`"),
    (example("= 5", "= 6"), "requests_per_second is not the default in its example → show 5.0"),
    (model(account="usr"), "ToySource.account is 'usr', no key → name a key of the model"),
    (model(logins=(("user", "pass"),)), "ToySource.logins is 'pass', no key"),
    (model(scopes="parts"), "ToySource.scopes is 'parts', no key"),
    (model(zone="timezone"), "ToySource.zone is 'timezone', no key"),
    (model(provider=[Literal["toi"], "toi"]), 'is of another provider → provider: Literal["toy"]'),
    (model(user=[str, Field(examples=["me"])]), "ToySource.user: no description → say what"),
    (model(user=[str, Field(description="x")]), "ToySource.user: no examples → add one"),
    (stream(tables=(things,)), "toy.things: `tables` is not a record's table and its children"),
    (stream(tables=(bare,)), "elsewhere.bare is not in the provider's schema → name it toy."),
    (stream(tables=(bare,)), "bare.id of toy.things: no comment → say what it holds"),
    (stream(modified="name"), "toy.things: `modified` is 'name' → name a time column of things"),
    (stream(modified="chnged"), "toy.things: `modified` is 'chnged' → name a time column"),
    (stream(scope="name"), "toy.things: `scope` is 'name' → name a key column of things"),
    (stream(scope="id"), "toy.things: has a `scope` → let `scopes` of the settings name"),
    (stream(origin="studio_url"), "`origin` is 'studio_url' → name a key of the settings"),
    (stream(name="timeout"), "toy.timeout: is a key of the settings too → give the stream another"),
    (stream(probe=lambda http: ""), "toy.things: `probe` cannot be called → let it"),
    (stream(look_up=lambda http: None), "`look_up` cannot be called → let it take (http, key)"),
    (stream(auth=lambda source: None), "`auth` cannot be called → let it take (source, seam)"),
    (stream(detail=Detail(lambda http: {}, ())), "`detail.fetch` cannot be called → let it take"),  # type: ignore[arg-type, misc]
    (stream(detail=Detail(fetch, ("hash",))), "`detail.fingerprint` has 'hash' → name columns"),
    (stream(parts=()), "toy.things: no part of callflow.flows → add a Part of that view"),
    (part(view="flws"), "toy.things: its part of flws is of no view → name one of flows, flow_"),
    (part(table=bare), "its part of flows reads elsewhere.bare → name one of the stream"),
    (part(columns={"nmae": "r.name"}), "gives nmae, which the view has not → name one of its col"),
    (part(columns={"name": "r.name"}), "its part of flows lacks flow_id → give it in `columns`"),
    (part(columns={"flow_id": "r.id"}), "its part of flows lacks modified_at → give it in `col"),
    (part(view="entry_points"), "its part of entry_points lacks entry_point_id → give it in `col"),
    (stream(name="widgets"), "no recorded answer → add tests/providers/toy/widgets.json"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "sentence"), OMISSIONS, ids=[sentence for _, sentence in OMISSIONS]
)
def test_an_omission_is_reported(provider: Provider, sentence: str, tmp_path: Path) -> None:
    assert any(sentence in each for each in forgotten(tmp_path, provider))


def without(member: str) -> dict[str, Any]:
    (record,) = ANSWER["things"]
    return {"things": [{name: value for name, value in record.items() if name != member}]}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (without("id"), "toy.things: a recorded record is rejected, "),
        (without("parts"), "toy.things: no row of parts is recorded → record one, or mend"),
        (without("changed"), "toy.things: things.changed stays empty → mend its column's `json`"),
    ],
)
def test_a_recorded_answer_that_does_not_load_is_said(
    answer: Any, sentence: str, tmp_path: Path
) -> None:
    assert any(sentence in each for each in forgotten(tmp_path, TOY, answer))


def test_a_list_that_is_not_emulated_is_reported() -> None:
    assert list(unemulated([TOY], {"toy": ["things"]})) == []
    (no_list,) = unemulated([TOY], {"toy": ["others"]})
    assert no_list == "toy.things: not emulated → add the list to etl/sandbox/toy.py"
    (no_emulator,) = unemulated([TOY], {})
    assert no_emulator == "toy: no emulator → add one to EMULATORS of etl/sandbox/server.py"
