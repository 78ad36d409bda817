"""The providers' own OpenAPI documents as judges: of answers, and of requests.

Beside this file are excerpts as data: the operations that callflow uses. They are in the dialect of
OpenAPI 3.0, in which `nullable` allows null; JSON Schema does not know it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from etl.sandbox.exchange import Request


def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def _is_time_of_2822(value: object) -> bool:
    return not isinstance(value, str) or parsedate_to_datetime(value).tzinfo is not None


def _is_uri(value: object) -> bool:
    """Allow references too: the documents call paths and "" a `uri`, in their own examples."""
    return not isinstance(value, str) or (" " not in value and urlsplit(value) is not None)


def _is_number(value: object) -> bool:
    """Allow what a filter may be too: a part of a number, with `*` for any digit."""
    return not isinstance(value, str) or re.fullmatch(r"[+]?[\d*]{1,15}", value) is not None


FORMATS = FormatChecker(formats=())
for _name, _check in {
    "date-time": _is_time,
    "date-time-rfc-2822": _is_time_of_2822,
    "phone-number": _is_number,
    "uri": _is_uri,
}.items():
    FORMATS.checks(_name, raises=ValueError)(_check)


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `root` is what comes before its paths, `whole` forbids missing members.

    Members that the document does not name are always a mistake.
    """

    content: Mapping[str, Any]
    root: str = ""
    whole: bool = False

    def about(self, path: str) -> tuple[str, dict[str, str]] | None:
        """Return the document's path that a request's path is an instance of, and its parts."""
        for template in self.content["paths"]:
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.root + template))
            if found := re.fullmatch(pattern, path):
                return template, found.groupdict()
        return None

    def wrong_in_request(self, request: Request) -> Iterator[str]:
        """Yield what the document does not allow in a request."""
        place = self.about(request.path)
        operation = place and self.content["paths"][place[0]].get(request.method.lower())
        if place is None or operation is None:
            yield f"{request.method} {request.path}: there is no such operation"
            return
        known = {(each["in"], each["name"]): each for each in operation["parameters"]}
        given = [("query", *pair) for pair in request.query]
        given += [("path", *pair) for pair in place[1].items()]
        names = [(kind, name) for kind, name, _ in given]
        for kind, name, text in given:
            parameter = known.get((kind, name))
            if parameter is None or names.count((kind, name)) > 1:
                yield f"{request.target}: {kind} parameter {name} is unknown, or given twice"
                continue
            for error in self._errors(parameter["schema"], _read(text, parameter["schema"])):
                yield f"{request.target}: {name}: {error.message}"
        for kind, name in known.keys() - set(names):
            if known[kind, name].get("required"):
                yield f"{request.target}: {kind} parameter {name} is missing"

    def wrong_in_answer(self, path: str, body: object) -> Iterator[str]:
        """Yield what the document does not allow in the answer to a GET of `path`."""
        place = self.about(path)
        if place is None:
            yield f"{path}: there is no such operation"
            return
        answer = self.content["paths"][place[0]]["get"]["responses"]["200"]
        for error in self._errors(answer["content"]["application/json"]["schema"], body):
            if not (path.startswith(_OF_2010) and _is_unset_sid(error)):
                yield f"{path}: {error.json_path}: {error.message[:200]}"

    def _errors(self, schema: Any, value: object) -> Iterator[ValidationError]:
        whole = {**self._strict(schema), "components": self._strict(self.content["components"])}
        validator = Draft202012Validator(whole, format_checker=FORMATS)
        yield from validator.iter_errors(value)

    def _strict(self, schema: Any) -> Any:
        """Return a schema of OpenAPI 3.0 as one of JSON Schema that allows no other members."""
        if isinstance(schema, list):
            return [self._strict(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        strict = {name: self._strict(value) for name, value in schema.items()}
        named = schema.get("properties")
        if schema.get("type") == "object" and named:
            strict["additionalProperties"] = False
            if self.whole:
                strict["required"] = list(named)
        if schema.get("nullable"):
            return {"anyOf": [strict, {"type": "null"}]}
        return strict


_OF_2010 = "/2010-04-01/"


def _is_unset_sid(error: ValidationError) -> bool:
    """Return whether the error is the one exception: "" for a sid that is not set.

    The REST API of 2010 sends it, in Twilio's own example too, and its document forbids it.
    """
    return bool(error.instance == "" and error.json_path.endswith("_sid"))


def _read(text: str, schema: Mapping[str, Any]) -> object:
    """Return a parameter's value as its schema means it; the text if it is no such value."""
    if schema.get("type") == "integer":
        return int(text) if re.fullmatch(r"-?\d+", text) else text
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _load(name: str, root: str = "", *, whole: bool = False) -> Document:
    text = Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8")
    return Document(json.loads(text), root, whole)


DOCUMENTS = {
    "twilio": _load("twilio", whole=True),
    "zoom": _load("zoom", "/v2"),
}
"""The documents by provider. Alibaba Cloud publishes none."""
