"""The providers, each declared in one place. Everything that lists providers reads `PROVIDERS`."""

from etl.providers import alibaba, twilio, zoom
from etl.providers.declare import Provider

PROVIDERS: tuple[Provider, ...] = (zoom.PROVIDER, twilio.PROVIDER, alibaba.PROVIDER)


def named(name: str, providers: tuple[Provider, ...] = PROVIDERS) -> Provider:
    """Return the provider that callflow.toml calls `name`. Raises KeyError where there is none."""
    return {provider.name: provider for provider in providers}[name]
