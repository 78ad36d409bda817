"""The version of callflow that is installed."""

from importlib.metadata import version

__version__ = version("callflow-warehouse")
