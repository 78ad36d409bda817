"""The examples for BI tools, on a filled warehouse and without the tools themselves.

tests/test_dbt_example.py runs dbt itself.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row
from sqlalchemy import make_url

from etl.providers import PROVIDERS
from etl.providers.catalog import STREAMS
from etl.warehouse.embedded import find_binaries
from etl.warehouse.model.definition import ViewDefinition
from tests.bi import EXAMPLES, fill, model, substituted
from tests.dbt_sources import WORDS
from tests.model_docs import columns_of, parts_of
from tests.postgres import Cluster, ask, dsn
from tests.superset_columns import BUNDLE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filled(
    clusters: Callable[[Path], Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    cluster = clusters(find_binaries(os.environ))
    with cluster.database(template=cluster.migrated) as url:
        fill(url, tmp_path_factory.mktemp("filled"))
        yield url


# --- dbt -----------------------------------------------------------------------------------------
def failing_rows(relation: str, test: Any, column: str) -> str:
    """Return what dbt asks for one of its generic tests: a query that finds no row if all is well.

    `column` is the one that the test stands at; a test of a table brings its own.
    """
    name, given = (test, {}) if isinstance(test, str) else next(iter(test.items()))
    given = given.get("arguments", {})
    column = given.get("column_name", column)
    if name == "not_null":
        return f"SELECT 1 FROM {relation} WHERE {column} IS NULL"
    if name == "unique":
        return f"SELECT {column} FROM {relation} GROUP BY 1 HAVING count({column}) > 1"
    if name == "accepted_values":
        listed = ", ".join(f"'{value}'" for value in given["values"])
        return f"SELECT {column} FROM {relation} WHERE {column} NOT IN ({listed})"
    assert name == "relationships"
    to = given["to"].removeprefix("source('").removesuffix("')").replace("', '", ".")
    return (
        f"SELECT {column} FROM {relation} AS child WHERE {column} IS NOT NULL AND NOT EXISTS"
        f" (SELECT FROM {to} AS parent WHERE parent.{given['field']} = child.{column})"
    )


SOURCES = yaml.safe_load((EXAMPLES / "dbt/models/sources.yml").read_text(encoding="utf-8"))


def declared() -> Iterator[tuple[str, Any, str]]:
    """Yield each data test of the sources: table, test, column."""
    for source in SOURCES["sources"]:
        for table in source["tables"]:
            relation = f"{source['schema']}.{table['name']}"
            yield from ((relation, test, "") for test in table.get("data_tests", ()))
            for column in table.get("columns", ()):
                for test in column.get("data_tests", ()):
                    yield relation, test, column["name"]


def test_what_the_sources_promise_holds_for_awkward_records_too(filled: str) -> None:
    tests = [*declared()]
    assert len(tests) > 80
    broken = [each for each in tests if ask(filled, failing_rows(*each))]
    assert broken == []
    for view in {relation for relation, *_ in tests}:
        assert ask(filled, f"SELECT FROM {view} LIMIT 1"), f"{view} is empty: nothing was shown"


def test_freshness_is_that_of_the_lists_that_fill_the_table(filled: str) -> None:
    queries = {
        f"{source['name']}.{table['name']}": table["config"]["loaded_at_query"]
        for source in SOURCES["sources"]
        for table in source["tables"]
        if "config" in table
    }
    ended = {
        f"{provider}.{stream}": at
        for provider, stream, at in ask(
            filled, "SELECT provider, stream, last_success_at FROM etl.streams"
        )
    }
    expected = {"callflow.freshness": min(ended.values())} | {
        table.fullname: ended[name] for name, stream in STREAMS.items() for table in stream.tables
    }
    assert {name: ask(filled, query)[0][0] for name, query in queries.items()} == expected


def test_the_accepted_words_are_those_that_the_comment_explains() -> None:
    comments = {
        (name, column): comment
        for name, each in parts_of(PROVIDERS)
        if isinstance(each, ViewDefinition)
        for column, comment in each.columns.items()
    }
    for place, words in WORDS.items():
        for word in words:
            assert word in comments[place], (place, word)


def test_the_weekly_changes_are_all_changes(filled: str) -> None:
    ((total,),) = ask(filled, "SELECT count(*) FROM callflow.changes")
    found = ask(filled, f"SELECT sum(change_count) FROM ({model('flow_changes_weekly')}) AS weekly")
    assert found == [(total,)]
    assert total > 5


def test_the_daily_count_is_that_of_the_end_of_each_day(filled: str) -> None:
    found = ask(filled, f"SELECT day, source, live_count FROM ({model('live_flows_daily')}) AS d")
    assert len({day for day, *_ in found}) > 8
    assert len({count for _, source, count in found if source == "zoom_demo"}) > 1
    for day, source, count in found:
        at = "least(now(), (%s::date + 1)::timestamp AT TIME ZONE 'UTC' - interval '1 microsecond')"
        truth = f"SELECT count(*) FROM callflow.flows_at({at}) WHERE is_live AND source = %s"
        assert ask(filled, truth, day, source) == [(count,)], (day, source)


def test_a_number_that_several_live_flows_have_counts_them_all(filled: str) -> None:
    numbers = f"SELECT DISTINCT address_key, flow_count FROM ({model('live_numbers')}) AS numbers"
    shared = ask(filled, "SELECT address_key, flow_count FROM callflow.shared_addresses")
    assert sorted(ask(filled, f"{numbers} WHERE flow_count > 1")) == sorted(shared)
    assert ("+12125550100", 3) in shared


# --- Grafana -------------------------------------------------------------------------------------
FLOWS = json.loads((EXAMPLES / "grafana/flows.json").read_text(encoding="utf-8"))
QUERIES = {
    panel["title"]: (panel, target)
    for panel in FLOWS["panels"]
    for target in panel.get("targets", ())
}
VARIABLES = {each["name"]: each["query"] for each in FLOWS["templating"]["list"][1:]}
FROM, TO = "'2020-01-01T00:00:00Z'", "'2100-01-01T00:00:00Z'"
MACROS = {
    r"\$__timeFilter\((\w+)\)": rf"\1 BETWEEN {FROM} AND {TO}",
    r"\$__timeFrom\(\)": FROM,
    r"\$__timeTo\(\)": TO,
    r"\$provider\b": "'zoom','twilio','alibaba'",
    r"\$source\b": "'zoom_demo','twilio_demo','alibaba_demo'",
}
"""What Grafana makes of its macros, and of a variable that may have several values."""


def asked(url: str, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query by their columns' names."""
    with psycopg.connect(dsn(url), row_factory=dict_row) as connection:
        return connection.execute(substituted(query, MACROS).encode()).fetchall()


@pytest.mark.parametrize("title", QUERIES)
def test_a_panel_shows_rows_under_the_names_that_it_formats(filled: str, title: str) -> None:
    panel, target = QUERIES[title]
    found = asked(filled, target["rawSql"])
    assert found, "an empty panel shows nothing of its query"
    names = {*found[0]}
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["options"] in names
    for transformation in panel.get("transformations", ()):
        fields = {v for k, v in transformation["options"].items() if k.endswith("Field")}
        assert fields == names
    if target["format"] == "time_series":
        assert {*names} == {"time", "metric", "changes"}
        assert isinstance(found[0]["time"], datetime)
    if panel["type"] == "stat":
        assert len(found) == 1
        assert len(names) == 1
    for row in found:
        assert all(
            isinstance(v, str | int | float | Decimal | datetime | None) for v in row.values()
        )


def test_the_variables_offer_every_provider_and_source(filled: str) -> None:
    offered = {
        name: [value for row in asked(filled, query) for value in row.values()]
        for name, query in VARIABLES.items()
    }
    assert offered == {
        "provider": ["alibaba", "twilio", "zoom"],
        "source": ["alibaba_demo", "twilio_demo", "zoom_demo"],
    }


def test_a_macro_that_grafana_would_not_know_is_noticed() -> None:
    with pytest.raises(ValueError, match="not substituted"):
        substituted("SELECT $__nothing(x)", MACROS)


# --- Superset ------------------------------------------------------------------------------------
def exported(kind: str) -> dict[str, Any]:
    """Return the files of a kind by their names: charts, datasets, …"""
    found = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (BUNDLE / kind).rglob("*.yaml")
    }
    assert found
    return found


def named_in(chart: Mapping[str, Any]) -> set[str]:
    """Return the columns that a chart's settings name."""
    settings = chart["params"]
    ordered = {json.loads(each)[0] for each in settings.get("order_by_cols", ())}
    found = {*settings.get("all_columns", ()), *settings.get("groupby", ())} | ordered
    return found | {*settings.get("column_config", ())} | {*filter(None, [settings.get("x_axis")])}


def test_superset_reads_columns_that_there_are(filled: str) -> None:
    datasets = exported("datasets")
    by_id = {each["uuid"]: each for each in datasets.values()}
    for name, each in datasets.items():
        assert (each["schema"], each["table_name"]) == ("callflow", name)
        names = [column["column_name"] for column in each["columns"]]
        assert names == [*columns_of(name)]
        times = {column["column_name"] for column in each["columns"] if column["is_dttm"]}
        assert each["main_dttm_col"] in (times or {None})
        for metric in each["metrics"]:
            ((value,),) = ask(filled, f"SELECT {metric['expression']} FROM callflow.{name}")
            assert value is not None
    for chart in exported("charts").values():
        dataset = by_id[chart["dataset_uuid"]]
        assert named_in(chart)
        assert named_in(chart) <= {*columns_of(dataset["table_name"])}, chart["slice_name"]
        metrics = {metric["metric_name"] for metric in dataset["metrics"]}
        assert {*chart["params"].get("metrics", ())} <= metrics
        assert chart["viz_type"] == chart["params"]["viz_type"]
        assert chart["description"].endswith(".")


def test_the_dashboard_of_superset_holds_together() -> None:
    (database,) = exported("databases").values()
    datasets, charts = exported("datasets"), exported("charts")
    (dashboard,) = exported("dashboards").values()
    every = [database, *datasets.values(), *charts.values(), dashboard]
    assert len({each["uuid"] for each in every}) == len(every)
    assert {each["database_uuid"] for each in datasets.values()} == {database["uuid"]}
    places = dashboard["position"]
    shown = [each for each in places.values() if isinstance(each, dict) and each["type"] == "CHART"]
    assert sorted(each["meta"]["uuid"] for each in shown) == sorted(
        each["uuid"] for each in charts.values()
    )
    for row in places["GRID_ID"]["children"]:
        children = [places[name] for name in places[row]["children"]]
        assert sum(child["meta"]["width"] for child in children) == 12
        assert all(child["parents"][-1] == row for child in children)
    used = {chart["dataset_uuid"] for chart in charts.values()}
    for each in dashboard["metadata"]["native_filter_configuration"]:
        (target,) = each["targets"]
        assert target["datasetUuid"] in used
        for dataset in datasets.values():
            assert target["column"]["name"] in columns_of(dataset["table_name"])


def test_superset_gets_no_password_and_may_not_write() -> None:
    (database,) = exported("databases").values()
    address = make_url(database["sqlalchemy_uri"])
    assert (address.username, address.password) == ("analyst", None)
    assert not any(database[each] for each in ("allow_dml", "allow_ctas", "allow_cvas"))


def test_the_screenshot_is_small() -> None:
    picture = EXAMPLES.parent / "docs/images/superset.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size < 300_000
