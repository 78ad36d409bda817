"""Alibaba Cloud CCC, version 2020-07-01: signed RPC calls, as Alibaba's API reference says.

What the reference leaves open is a switch here: the ceiling of PageNumber, the order of rows that
changed in the same second, the status of throttling. Answers are JSON only.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, ClassVar

import msgspec

from etl.sandbox import alibaba_data
from etl.sandbox.alibaba_gateway import (
    AccessKey,
    Nonces,
    Refused,
    missing,
    parameters_of,
    read,
    refusal,
)
from etl.sandbox.data import RandomOf, Sizes
from etl.sandbox.exchange import Request, Response, json_response, whole_number
from etl.sandbox.faults import Fault
from etl.sandbox.store import Row, Store
from etl.sandbox.wire import Clock

Parameters = Mapping[str, str]


class Alibaba:
    """State and behaviour of one account; any public attribute may be changed at any time.

    `flows`           instance id → that instance's flows, by ContactFlowId.
    `phone_numbers`   instance id → that instance's numbers, by Number.
    `keys`            access key id → `AccessKey`; `access_key_id` is the one in `settings`.
    `unlimited_pages` whether PageNumber may exceed 100, as the English reference says; the Chinese
                      one does not.
    `ties`            shuffles rows with the same UpdatedTime for each request; None: they come in
                      order of creation.
    `sorts_numbers`   whether numbers come sorted, or the newest first; the reference says nothing.
    `masks_numbers`   whether the last four digits of each number are hidden.
    `accepts_get`     whether GET works like POST.
    """

    name: ClassVar[str] = "alibaba"

    def __init__(
        self,
        instance_ids: tuple[str, ...] = ("ccc-sandbox", "ccc-sandbox-survey"),
        *,
        clock: Clock | None = None,
        keep_requests: int | None = 10_000,
    ) -> None:
        self.url = ""
        self.clock = clock or Clock()
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=keep_requests)
        self.errors: list[Exception] = []

        self.access_key_id = "sandbox-alibaba-key"
        self.keys = {self.access_key_id: AccessKey("sandbox-alibaba-secret")}
        self.unlimited_pages = False
        self.ties: Random | None = Random(0)  # noqa: S311  (not for secrets)
        self.sorts_numbers = False
        self.masks_numbers = False
        self.accepts_get = True

        self._lock = threading.RLock()
        self.flows: dict[str, Store] = {}
        self.phone_numbers: dict[str, Store] = {}
        for instance_id in instance_ids:
            self.add_instance(instance_id)
        self._nonces = Nonces()

    @property
    def access_key_secret(self) -> str:
        """The secret of the key in `settings`."""
        return self.keys[self.access_key_id].secret

    def add_instance(self, instance_id: str) -> Store:
        """Add an empty instance and return its flows."""
        store = Store("ContactFlowId", "UpdatedTime", self._now, self._lock)
        self.flows[instance_id] = store
        self.phone_numbers[instance_id] = Store("Number", None, self._now, self._lock)
        return store

    def fill(self, random_of: RandomOf, sizes: Sizes) -> None:
        """Add generated flows and numbers to each instance."""
        count = sizes.of("alibaba.contact_flows", sizes.flows)
        for instance_id, store in self.flows.items():
            flows = alibaba_data.flows(random_of(instance_id), count, instance_id)
            for flow in flows:
                store.add(flow)
            random = random_of(f"{instance_id} numbers")
            wanted = sizes.of("alibaba.phone_numbers", sizes.flows // 2)
            for row in alibaba_data.numbers(random, wanted, instance_id, flows):
                self.phone_numbers[instance_id].add(row)

    def settings(self) -> dict[str, object]:
        """Return what callflow.toml says of this account, without secrets."""
        return {
            "access_key_id": self.access_key_id,
            "instance_ids": list(self.flows),
            "base_url": self.url,
        }

    def secrets(self) -> dict[str, str]:
        """Return the secrets of this account, by their keys in callflow.toml."""
        token = self.keys[self.access_key_id].security_token
        temporary = {"security_token": token} if token else {}
        return {"access_key_secret": self.access_key_secret, **temporary}

    def records(self) -> dict[str, list[Any]]:
        """Return the records as they are now, by stream: what complete lists return."""
        with self._lock:
            return {
                stream: [row for store in stores.values() for row in store.records()]
                for stream, stores in (
                    ("contact_flows", self.flows),
                    ("phone_numbers", self.phone_numbers),
                )
            }

    def change(self) -> list[str]:
        """Change nothing in the demo."""
        return []

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        request_id = str(uuid.uuid4()).upper()
        with self._lock:
            answer = self._answer(request, request_id)
        return Response(
            answer.status, answer.body, {**answer.headers, "x-acs-request-id": request_id}
        )

    def _now(self) -> str:
        # The reference gives no zone; Shanghai's is what callflow assumes by default.
        shanghai = datetime.fromtimestamp(self.clock(), UTC) + timedelta(hours=8)
        return shanghai.strftime("%Y-%m-%d %H:%M:%S.0")

    def _answer(self, request: Request, request_id: str) -> Response:
        outcome = self._outcome(request)
        if isinstance(outcome, Refused):
            return error(outcome.status, outcome.code, outcome.message, request_id)
        return json_response(
            200,
            {
                "Code": "OK",
                "HttpStatusCode": 200,
                "Message": "",
                "RequestId": request_id,
                "Data": outcome,
            },
        )

    def _outcome(self, request: Request) -> dict[str, object] | Refused:
        """Check the request, do what it asks for; return the `Data` of the answer."""
        if request.path != "/" or request.method not in ("POST", "GET"):
            return _NO_SUCH_API
        if request.method == "GET" and not self.accepts_get:
            text = "The specified HTTP method is not supported."
            return Refused(400, "UnsupportedHTTPMethod", text)
        given = parameters_of(request)
        signed = read(request, given)
        if isinstance(signed, Refused):
            return signed
        now = self.clock()
        refused = refusal(signed, self.keys, now) or self._nonces.use(signed, now)
        if refused is not None:
            return refused
        if signed.version != "2020-07-01":
            return Refused(404, "InvalidVersion", "Specified parameter Version is not valid.")
        action = {
            "ListContactFlows": self._list_contact_flows,
            "GetContactFlow": self._get_contact_flow,
            "ListPhoneNumbers": self._list_phone_numbers,
            "ListInstances": self._list_instances,
        }.get(signed.action)
        return _NO_SUCH_API if action is None else action(dict(given))

    # -- the actions -------------------------------------------------------------------------

    def _instance(self, parameters: Parameters) -> Store | Refused:
        instance_id = parameters.get("InstanceId", "")
        if not instance_id:
            return missing("InstanceId")
        store = self.flows.get(instance_id)
        if store is None:
            text = f"The specified instance {instance_id} does not exist."
            return Refused(404, "NotExists.InstanceId", text)
        return store

    def _list_contact_flows(self, parameters: Parameters) -> dict[str, object] | Refused:
        store = self._instance(parameters)
        window = _window(parameters, unlimited=self.unlimited_pages)
        if isinstance(store, Refused):
            return store
        if isinstance(window, Refused):
            return window
        for name, allowed in _CHOICES.items():
            if parameters.get(name) and parameters[name] not in allowed:
                return Refused(400, "InvalidParameter", f"The parameter {name} is not valid.")
        kind, pattern = parameters.get("Type"), parameters.get("SearchPattern")
        rows = store.listed(
            by_update=True,
            descending=parameters.get("SortOrder") != "ASC",
            ties=self.ties,
            wanted=partial(_matches, kind, pattern) if kind or pattern else None,
        )
        return _page(window, rows, lambda row: msgspec.Raw(row.json))

    def _get_contact_flow(self, parameters: Parameters) -> dict[str, object] | Refused:
        """Return a list row without its numbers. Without a draft a flow is not found."""
        store = self._instance(parameters)
        if isinstance(store, Refused):
            return store
        for name in ("ContactFlowId", "DraftId"):
            if not parameters.get(name):
                return missing(name)
        text = store.find(parameters["ContactFlowId"])
        flow = {} if text is None else msgspec.json.decode(text)
        if text is None or flow.get("DraftId") != parameters["DraftId"]:
            flow_id = parameters["ContactFlowId"]
            gone = f"The specified contact flow {flow_id} does not exist."
            return Refused(404, "NotExists.ContactFlowId", gone)
        return {name: value for name, value in flow.items() if name != "NumberList"}

    def _list_phone_numbers(self, parameters: Parameters) -> dict[str, object] | Refused:
        """List the numbers of an instance, each with the flow that it reaches, if it does."""
        store = self._instance(parameters)
        window = _window(parameters, unlimited=self.unlimited_pages)
        if isinstance(store, Refused):
            return store
        if isinstance(window, Refused):
            return window
        asked = {name: parameters.get(name) for name in ("Active", "Usage", "SearchPattern")}
        rows = self.phone_numbers[parameters["InstanceId"]].listed(
            by_update=False,
            wanted=partial(_is_number, asked) if any(asked.values()) else None,
        )
        if self.sorts_numbers:
            rows = sorted(rows, key=lambda row: row.key)
        return _page(window, rows, self._number_shown)

    def _number_shown(self, row: Row) -> object:
        shown = msgspec.json.decode(row.json) if self.masks_numbers else None
        if isinstance(shown, dict) and isinstance(shown.get("Number"), str):
            return {**shown, "Number": f"{shown['Number'][:-4]}****"}
        return msgspec.Raw(row.json)

    def _list_instances(self, parameters: Parameters) -> dict[str, object] | Refused:
        window = _window(parameters, unlimited=self.unlimited_pages)
        if isinstance(window, Refused):
            return window
        return _page(window, [_described(instance_id) for instance_id in self.flows])


_NO_SUCH_API = Refused(
    404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method."
)

_CHOICES = {
    "Type": ("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW"),
    "SortOrder": ("ASC", "DESC"),
    "OrderByField": ("updatedTime",),
}


def _window(parameters: Parameters, *, unlimited: bool) -> tuple[int, int] | Refused:
    """Read PageNumber and PageSize; both are required, and 1 to 100."""
    numbers = []
    for name in ("PageNumber", "PageSize"):
        if not parameters.get(name):
            return missing(name)
        number = whole_number(parameters[name])
        if number is None:
            return Refused(400, "InvalidParameter.Format", f"{name} is not a number.")
        if number < 1:
            return Refused(400, "Parameter.Minimum", f"{name} is less than 1.")
        if number > 100 and not (unlimited and name == "PageNumber"):
            return Refused(400, "Parameter.Maximum", f"{name} is greater than 100.")
        numbers.append(number)
    return numbers[0], numbers[1]


def _matches(kind: str | None, pattern: str | None, flow: Any) -> bool:
    """Return whether a flow is of this Type, and its name or description holds the pattern."""
    if not isinstance(flow, dict):
        return False
    text = f"{flow.get('Name') or ''}\n{flow.get('Description') or ''}"
    return (not kind or flow.get("Type") == kind) and (not pattern or pattern in text)


def _is_number(asked: Mapping[str, str | None], row: Any) -> bool:
    """Return whether a number is as asked: Active, this Usage, with the pattern in it."""
    if not isinstance(row, dict):
        return False
    active, usage, pattern = asked["Active"], asked["Usage"], asked["SearchPattern"]
    return (
        (not active or str(row.get("Active")).lower() == active.lower())
        and (not usage or row.get("Usage") == usage)
        and (not pattern or pattern in str(row.get("Number")))
    )


def _described(instance_id: str) -> dict[str, object]:
    """Return a row of ListInstances."""
    return {
        "Id": instance_id,
        "Name": instance_id,
        "Status": "Running",
        "DomainName": instance_id,
        "AliyunUid": "1000000000000000",
        "ConsoleUrl": f"https://ccc.example.com/{instance_id}",
        "CreateTime": 1_614_900_000_000,
        "Description": "",
        "NumberList": [],
        "AdminList": [],
    }


def _page(
    window: tuple[int, int], rows: list[Any], show: Callable[[Any], object] = lambda row: row
) -> dict[str, object]:
    number, size = window
    return {
        "PageNumber": number,
        "PageSize": size,
        "TotalCount": len(rows),
        "List": [show(row) for row in rows[(number - 1) * size : number * size]],
    }


# -- error answers, for the emulator and for a fault's `response` --------------------------------


def error(
    status: int,
    code: str,
    message: str,
    request_id: str = "SANDBOX-REQUEST",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the gateway's error body (Alibaba's docs, 'Common error codes')."""
    body = {
        "RequestId": request_id,
        "HostId": "ccc.cn-shanghai.aliyuncs.com",
        "Code": code,
        "Message": message,
        "Recommend": f"https://api.aliyun.com/troubleshoot?q={code}",
    }
    return json_response(status, body, headers)


def throttled(
    status: int = 400, *, retry_after_ms: int | None = None, code: str = "Throttling.User"
) -> Response:
    """Report too many calls (documented: HTTP 400); `retry_after_ms` adds `x-acs-retry-after`."""
    headers = {} if retry_after_ms is None else {"x-acs-retry-after": str(retry_after_ms)}
    text = "Request was denied due to user flow control."
    return error(status, code, text, headers=headers)


def unavailable() -> Response:
    """Report that the service is down."""
    text = "The request has failed due to a temporary failure of the server."
    return error(503, "ServiceUnavailable", text)


def not_ok(code: str = "InternalError", message: str = "boom", status: int = 500) -> Response:
    """Report a failure in the envelope of an HTTP 200."""
    body = {"Code": code, "HttpStatusCode": status, "Message": message, "RequestId": "R5"}
    return json_response(200, body)
