"""The emulators and the providers' declarations, which know nothing of each other, agree."""

from pathlib import Path

import pytest

from etl.config import load as config
from etl.config.settings import secrets
from etl.providers import PROVIDERS
from etl.providers.declare import Provider
from etl.sandbox import PORT_OF
from etl.sandbox.data import EMPTY
from etl.sandbox.server import EMULATORS, Emulated, serve

PAIRS = [
    pytest.param(emulator, provider, id=provider.name)
    for emulator, provider in zip(EMULATORS, PROVIDERS, strict=True)
]


def test_every_provider_has_an_emulator_in_the_same_order() -> None:
    assert [emulator.name for emulator in EMULATORS] == [provider.name for provider in PROVIDERS]
    assert [emulator.name for emulator in EMULATORS] == list(PORT_OF)


@pytest.mark.parametrize(("emulator", "provider"), PAIRS)
def test_every_stream_has_a_list(emulator: type[Emulated], provider: Provider) -> None:
    assert list(emulator().records()) == [stream.name for stream in provider.streams]


def test_the_printed_sources_are_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "callflow.toml"
    path.touch(mode=0o600)
    with serve(EMPTY) as sandbox:
        path.write_text(sandbox.toml(), encoding="utf-8")
        sources = config.load(path, {}).sources.values()
        emulators = sandbox.emulators.values()
        assert [source.provider for source in sources] == [each.name for each in emulators]
        for source, emulator in zip(sources, emulators, strict=True):
            assert source.base_url.startswith(emulator.url)
            assert secrets(source) == set(emulator.secrets().values())


def test_the_demo_can_change_what_it_has_and_says_what_was_done() -> None:
    with serve(EMPTY) as sandbox:
        assert [each.change() for each in sandbox.emulators.values()] == [[]] * len(EMULATORS)
    with serve() as sandbox:
        before = sandbox.records()
        phrases = {name: each.change() for name, each in sandbox.emulators.items()}
        after = sandbox.records()
    assert {name for name in after if after[name] != before[name]} == {
        name for name, said in phrases.items() if said
    }


def test_an_emulator_is_an_attribute_of_the_sandbox() -> None:
    with serve(EMPTY) as sandbox:
        assert [getattr(sandbox, each.name) for each in EMULATORS] == [*sandbox.emulators.values()]
        with pytest.raises(AttributeError, match="no emulator 'genesys'"):
            _ = sandbox.genesys
