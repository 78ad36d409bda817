"""What the tests of the examples for orchestrators share: one run in a separate environment."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from etl.load import lease as leases
from etl.sandbox.server import Sandbox
from etl.warehouse.connect import connect
from tests.postgres import dsn

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Example:
    """A folder of examples, and the program that runs what is in it and prints FOUND and JSON."""

    python: str
    folder: str
    program: str
    env: Mapping[str, str]
    place: Path
    warehouse: str
    sandbox: Sandbox

    def call(self, *words: str) -> str:
        """Run the interpreter and return what it printed."""
        config = self.place / "callflow.toml"
        text = f'[warehouse]\nurl = "{dsn(self.warehouse)}"\n{self.sandbox.toml()}'
        if not config.exists():
            config.write_text(text, encoding="utf-8")
            config.chmod(0o600)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place),
            "CALLFLOW_CONFIG": str(config),
            "PYTHONDONTWRITEBYTECODE": "1",  # the examples are read by other tests, file by file
        }
        done = subprocess.run(
            [self.python, *words], env=env | dict(self.env), cwd=self.place, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self) -> tuple[dict[str, Any], str]:
        """Run the program once; return its result and the log."""
        log = self.call("-c", self.program, str(EXAMPLES / self.folder))
        (line,) = [line for line in log.splitlines() if line.startswith("FOUND ")]
        return json.loads(line.removeprefix("FOUND ")), log


@contextmanager
def busy_until_seen(url: str, source: str, stream: str) -> Iterator[None]:
    """Hold the lease of that stream until a run has found it taken."""
    engine = connect(url)
    with engine.begin() as connection:
        lease = leases.acquire(
            connection, source, stream, holder="elsewhere:1:unknown", ttl=timedelta(hours=1)
        )
    over = threading.Event()

    def release() -> None:
        while not over.wait(0.1):
            with engine.begin() as connection:
                if connection.exec_driver_sql("SELECT FROM etl.runs WHERE status = 'busy'").all():
                    leases.release(connection, lease)
                    return

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        engine.dispose()
