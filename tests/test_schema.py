"""The JSON Schema of callflow.toml: what it knows, and what it refuses.

That it accepts every valid configuration of tests/test_config.py is checked there, on reading.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from etl.config.draft import TABLES, is_secret, keys_of
from etl.config.schema import schema
from etl.providers import PROVIDERS
from tests.providers.toy import TOY

SCHEMA = schema(PROVIDERS)
ZOOM = '[sources.zoom_eu]\nprovider = "zoom"\n'


def accepts(text: str) -> bool:
    found: bool = jsonschema.Draft7Validator(SCHEMA).is_valid(tomllib.loads(text))
    return found


def test_it_is_a_schema_of_draft_7() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$ref" not in str(SCHEMA)


def tables() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Return each table's schema with the keys that it must know."""
    found = {n: (SCHEMA["properties"][n], keys_of(model)) for n, model in TABLES.items()}
    (source,) = SCHEMA["properties"]["sources"]["patternProperties"].values()
    for provider, made in zip(PROVIDERS, source["oneOf"], strict=True):
        streams = [each.name for each in provider.streams]
        found[provider.name] = (made, keys_of(provider.settings, streams))
        for part, model in provider.parts.items():
            found[f"{provider.name}.{part}"] = (made["properties"][part], keys_of(model))
    return found


@pytest.mark.parametrize("name", tables())
def test_every_key_is_in_it_with_words_about_it_and_no_other(name: str) -> None:
    made, keys = tables()[name]
    assert set(made["properties"]) == set(keys)
    assert made["additionalProperties"] is False
    assert all(each["description"] for each in made["properties"].values())


def test_defaults_enumerations_and_patterns_are_those_of_the_models() -> None:
    daemon = SCHEMA["properties"]["daemon"]["properties"]
    assert (daemon["workers"]["default"], daemon["workers"]["maximum"]) == (8, 1000)
    assert daemon["stop_deadline"]["default"] == "25s"
    assert daemon["executor"]["enum"] == ["threads", "dask"]
    made, _ = tables()["zoom"]
    assert made["properties"]["scan_deadline"]["default"] == "2h"
    assert made["properties"]["base_url"]["default"] == "https://api.zoom.us/v2"
    account = tables()["twilio"][0]["properties"]["account_sid"]
    assert account["pattern"] == "^AC[0-9a-fA-F]{32}$"


def test_a_new_provider_is_in_it() -> None:
    made = schema((*PROVIDERS, TOY))["properties"]["sources"]["patternProperties"]
    (source,) = made.values()
    assert [each["title"] for each in source["oneOf"]][-1] == TOY.title


@pytest.mark.parametrize(
    "text",
    [
        "[warehous]",
        '[warehouse]\nurll = "x"',
        '[warehouse]\nurl = "a"\nurl_file = "b"',
        "[daemon]\nworkers = 0",
        "[daemon]\nworkers = 1.5",
        '[daemon]\nexecutor = "thread"',
        "[schedule]\nevery = 15",
        '[schedule]\nevery = "15 min"',
        '[schedule]\njitter = "110%"',
        "[schedule]\njitter = 2",
        '[schedule]\ncron = "* * *"',
        "sources = 1",
        "[sources.zoom_eu]\naccount_id = 'a'",
        '[sources.Zoom-EU]\nprovider = "zoom"',
        '[sources.a]\nprovider = "zom"',
        ZOOM + 'name = "x"',
        ZOOM + "options = {}",
        ZOOM + 'account_sid = "AC"',
        ZOOM + 'auth_token_file = "x"',
        ZOOM + "timeout = 0",
        ZOOM + 'timeout = "30"',
        ZOOM + "timeout = 2020-01-01",
        ZOOM + 'account_id = "a b"',
        ZOOM + 'streams = ["channels"]',
        ZOOM + "streams = []",
        ZOOM + 'streams = ["flows", "flows"]',
        ZOOM + "[sources.zoom_eu.channels]",
        ZOOM + '[sources.zoom_eu.flows]\non_absent = "maybe"',
        ZOOM + '[sources.zoom_eu.schedule]\nevry = "1m"',
        '[sources.a]\nprovider = "twilio"\naccount_sid = "AC12"',
        '[sources.a]\nprovider = "alibaba"\ninstance_ids = "a"',
        '[sources.a]\nprovider = "alibaba"\ninstance_ids = []',
    ],
)
def test_what_is_wrong_is_refused(text: str) -> None:
    assert not accepts(text)


@pytest.mark.parametrize("key", [k for k, i in PROVIDERS[0].settings.model_fields.items()
                                 if is_secret(i)])  # fmt: skip
def test_a_secret_or_its_file(key: str) -> None:
    assert accepts(f'{ZOOM}{key} = "x"')
    assert accepts(f'{ZOOM}{key}_file = "x"')
    assert not accepts(f'{ZOOM}{key} = "x"\n{key}_file = "x"')


def test_the_example_names_the_schema_first_and_fits_it() -> None:
    file = Path(__file__).parent.parent / "etl" / "config" / "callflow.example.toml"
    text = file.read_text("utf-8")
    assert text.startswith("#:schema callflow.schema.json\n")
    assert "`callflow init --schema >callflow.schema.json`" in text
    text = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text)
    text = re.sub('account_sid = "…"', f'account_sid = "AC{32 * "0"}"', text)
    text = re.sub('api_key_sid = "…"', f'api_key_sid = "SK{32 * "0"}"', text)
    assert accepts(text.replace('"…"', '"x"'))
