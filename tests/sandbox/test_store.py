"""Records are changed and listed."""

import json
import threading
from random import Random

import pytest

from etl.sandbox.store import Cursor, Store


@pytest.fixture
def store() -> Store:
    return Store("id", "at", lambda: "now", threading.RLock())


def ids(store: Store, *, by_update: bool) -> list[str]:
    return [row.key for row in store.listed(by_update=by_update)]


def test_a_record_is_added_replaced_and_deleted(store: Store) -> None:
    assert store.add({"id": "a", "n": 1}) == "a"
    store.add({"id": "b"})
    store.add({"id": "a", "n": 2})
    assert store.records() == [{"id": "a", "n": 2}, {"id": "b"}]
    assert ids(store, by_update=False) == ["b", "a"]  # a replaced record keeps its place
    store.delete("a")
    assert (store.keys(), len(store)) == (["b"], 1)
    with pytest.raises(KeyError):
        store.get("a")
    with pytest.raises(KeyError):
        store.update("a", n=3)
    store.clear()
    assert store.records() == []
    store.add({"id": "c"})
    assert ids(store, by_update=False) == ["c"]


def test_records_are_returned_as_copies(store: Store) -> None:
    record = {"id": "a", "list": [1]}
    store.add(record)
    record["list"] = []
    store.get("a")["list"].append(2)
    store.records()[0]["list"].append(3)
    assert store.get("a") == {"id": "a", "list": [1]}


def test_changes_sort_the_list_again(store: Store) -> None:
    store.add({"id": "a", "at": "2"})
    store.add({"id": "b", "at": "1"})
    assert ids(store, by_update=True) == ["a", "b"]
    store.update_silently("b", n=1)
    assert ids(store, by_update=True) == ["a", "b"]
    store.update("b", n=2)
    assert store.get("b") == {"id": "b", "at": "now", "n": 2}
    assert ids(store, by_update=True) == ["b", "a"]
    store.add({"id": "c", "at": "x"})
    assert ids(store, by_update=True) == ["c", "b", "a"]
    assert [row.key for row in store.listed(by_update=True, descending=False)] == ["a", "b", "c"]


def test_anything_may_be_a_row(store: Store) -> None:
    store.add({"id": "a"})
    assert store.add({"id": "a"}, key="again") == "again"
    odd_ones: list[object] = [None, 5, [], {}, {"id": None}, {"id": "", "x": "\ud800\x00"}]
    for odd in odd_ones:
        store.add(odd)
    store.add_raw(b'{"id":"nan","x":NaN,"x":1e400}', key="nan", updated="zzz")
    assert len(store) == 9
    assert store.records()[:2] == [{"id": "a"}, {"id": "a"}]
    assert store.records()[7] == {"id": "", "x": "\ud800\x00"}
    rows, following, total = store.page("offset/updated", Cursor(), 100)
    assert rows[0] == b'{"id":"nan","x":NaN,"x":1e400}'
    assert (following, total) == (None, 9)


def test_many_rows_are_loaded_after_the_existing_ones(store: Store) -> None:
    store.add({"id": "old"})
    assert ids(store, by_update=False) == ["old"]
    store.load([("a", b'{"id":"a"}', "1"), ("b", b'{"id":"b"}', "0")])
    assert ids(store, by_update=False) == ["b", "a", "old"]
    store.add({"id": "new"})
    assert ids(store, by_update=False) == ["new", "b", "a", "old"]
    assert ids(store, by_update=True)[:2] == ["a", "b"]


def test_a_replica_answers_until_it_is_removed(store: Store) -> None:
    store.add({"id": "a", "n": 1})
    image = store.image()
    store.add({"id": "b"})
    store.update("a", n=2)
    store.replica = image
    assert ids(store, by_update=True) == ["a"]
    assert store.find("a") == b'{"id":"a","n":1}'
    assert store.find("b") is None
    assert len(store.records()) == 2  # the truth is not the replica's
    store.replica = None
    assert ids(store, by_update=False) == ["b", "a"]
    assert json.loads(store.find("a") or b"") == {"id": "a", "n": 2, "at": "now"}


def test_ties_are_shuffled_within_the_same_time_only(store: Store, seed: int) -> None:
    for number in range(12):
        store.add({"id": str(number), "at": "early" if number < 6 else "late"})
    random = Random(seed)
    orders = {
        tuple(row.key for row in store.listed(by_update=True, ties=random)) for _ in range(20)
    }
    assert len(orders) > 1
    firsts = {frozenset(order[:6]) for order in orders}
    assert firsts == {frozenset(["6", "7", "8", "9", "10", "11"])}
