"""`callflow daemon`: sync on a schedule, until it is stopped."""

import logging
import os
import sys

import structlog

from etl.config import load as config
from etl.config.redact import Redactor
from etl.config.settings import Settings, redactor
from etl.daemon import daemon, logs
from etl.daemon.context import Surroundings


def run(settings: Settings, redact: Redactor, *, with_migrate: bool, level: int | None) -> None:
    """Log to stderr, and run the daemon; it reads the configuration again when it is asked to.

    `level` is that of `logging` from which it logs; None: INFO.
    """
    least = logging.INFO if level is None else level

    def log_with(redact: Redactor) -> None:
        logs.configure(sys.stderr, as_json=not sys.stderr.isatty(), redact=redact, level=least)

    def log_again(settings: Settings) -> None:
        log_with(redactor(settings))  # a configuration that was read again may have new secrets

    def load_again() -> Settings:
        again = config.load(settings.path, os.environ)
        config.require_sources(again)
        return again

    log_with(redact)
    log = structlog.get_logger("callflow")
    for warning in settings.warnings:
        log.warning(warning)
    given = Surroundings(load_again, os.environ, log, log_again, with_migrate=with_migrate)
    daemon.run(settings, given)
