"""Requests that Alibaba Cloud's own library signed: data, so that it need not be installed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.extract.url import encode

KEY_ID = "TESTKEY"


@dataclass(frozen=True, slots=True)
class Signed:
    """One request: what the library was given, and the Authorization that it returned."""

    method: str
    host: str
    action: str
    date: str
    nonce: str
    token: str
    content_type: str
    body: str
    query: dict[str, str]
    secret: str
    authorization: str

    def content(self) -> bytes:
        return bytes.fromhex(self.body)

    def headers(self) -> dict[str, str]:
        """Return the headers that were signed."""
        found = {
            "host": self.host,
            "x-acs-action": self.action,
            "x-acs-version": "2020-07-01",
            "x-acs-date": self.date,
            "x-acs-signature-nonce": self.nonce,
            "x-acs-content-sha256": hashlib.sha256(self.content()).hexdigest(),
            "x-acs-security-token": self.token,
            "content-type": self.content_type,
        }
        return {name: value for name, value in found.items() if value}

    def url(self) -> str:
        return f"https://{self.host}/?{encode(self.query)}"


def recorded() -> list[Signed]:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    cases: list[dict[str, Any]] = json.loads(text)["cases"]
    return [Signed(**case) for case in cases]
