"""Alibaba Cloud CCC, version 2020-07-01: signed RPC calls, as Alibaba's API reference has them.

What the reference leaves open is a switch here: the ceiling of PageNumber, the order of rows that
changed in the same second, the status of throttling. Answers are JSON only.
"""

import hmac
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from etl.sandbox import signature
from etl.sandbox.store import Store
from etl.sandbox.wire import Clock, Fault, Request, Response, json_response, whole_number

MUST_BE_SIGNED = frozenset(
    {
        "host",
        "x-acs-action",
        "x-acs-content-sha256",
        "x-acs-date",
        "x-acs-signature-nonce",
        "x-acs-version",
    }
)
"""Headers without which a V3 signature proves nothing."""

_AUTHORIZATION = re.compile(
    r"ACS3-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)

Parameters = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key pair. With `security_token` it is a temporary one (STS), valid until `expires_at`."""

    secret: str
    security_token: str | None = None
    expires_at: float = float("inf")
    active: bool = True


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a request says about itself, in either signature version."""

    version: str
    action: str
    access_key_id: str
    nonce: str
    date: str
    max_age: timedelta
    security_token: str | None
    signature: str
    string_to_sign: str
    sign: Callable[[str, str], str]


class Alibaba:
    """State and behaviour of one account's instances; public attributes may be changed any time.

    `flows`           instance id → that instance's flows, by ContactFlowId.
    `keys`            access key id → `AccessKey`; `access_key_id` is the one `toml` names.
    `unlimited_pages` PageNumber may pass 100, as the English reference says and the Chinese does
                      not.
    `ties`            shuffles rows with the same UpdatedTime anew for each request; None: in order
                      of creation.
    `accepts_get`     whether GET works as POST does.
    """

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
        self.accepts_get = True

        self._lock = threading.RLock()
        self.flows: dict[str, Store] = {}
        for instance_id in instance_ids:
            self.add_instance(instance_id)
        self._nonces: dict[tuple[str, str], float] = {}

    @property
    def access_key_secret(self) -> str:
        """The secret of the key that `Sandbox.toml` names."""
        return self.keys[self.access_key_id].secret

    def add_instance(self, instance_id: str) -> Store:
        """Add an empty instance and return its flows."""
        store = Store("ContactFlowId", "UpdatedTime", self._now, self._lock)
        self.flows[instance_id] = store
        return store

    def records(self) -> dict[str, list[Any]]:
        """The flows as they are now, by instance id: what complete lists return."""
        with self._lock:
            return {instance_id: store.records() for instance_id, store in self.flows.items()}

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        request_id = str(uuid.uuid4()).upper()
        with self._lock:
            answer = self._route(request, request_id)
        return Response(
            answer.status, answer.body, {**answer.headers, "x-acs-request-id": request_id}
        )

    def _now(self) -> str:
        # The reference gives no zone; Shanghai's is what callflow assumes by default.
        shanghai = datetime.fromtimestamp(self.clock(), UTC) + timedelta(hours=8)
        return shanghai.strftime("%Y-%m-%d %H:%M:%S.0")

    def _route(self, request: Request, request_id: str) -> Response:
        if request.path != "/" or request.method not in ("POST", "GET"):
            return error(404, "InvalidAction.NotFound", _NO_SUCH_API, request_id)
        if request.method == "GET" and not self.accepts_get:
            text = "The specified HTTP method is not supported."
            return error(400, "UnsupportedHTTPMethod", text, request_id)
        parameters = _parameters(request)
        signed = _read_v3(request) or _read_v1(request, parameters)
        if isinstance(signed, _Refused):
            return error(signed.status, signed.code, signed.message, request_id)
        refused = self._refusal(signed)
        if refused is not None:
            return error(refused.status, refused.code, refused.message, request_id)
        if signed.version != "2020-07-01":
            text = "Specified parameter Version is not valid."
            return error(404, "InvalidVersion", text, request_id)
        action = {
            "ListContactFlows": self._list_contact_flows,
            "GetContactFlow": self._get_contact_flow,
            "ListPhoneNumbers": self._list_phone_numbers,
            "ListInstances": self._list_instances,
        }.get(signed.action)
        if action is None:
            return error(404, "InvalidAction.NotFound", _NO_SUCH_API, request_id)
        outcome = action(dict(parameters))
        if isinstance(outcome, _Refused):
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

    # -- the signature -----------------------------------------------------------------------

    def _refusal(self, signed: _Signed) -> "_Refused | None":
        now = self.clock()
        try:
            date = datetime.strptime(signed.date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            text = "Specified time stamp or date value is not well formatted."
            return _Refused(400, "InvalidTimeStamp.Format", text)
        if abs(now - date.timestamp()) > signed.max_age.total_seconds():
            text = "Specified time stamp or date value is expired."
            return _Refused(400, "InvalidTimeStamp.Expired", text)
        key = self.keys.get(signed.access_key_id)
        if key is None:
            text = "Specified access key is not found."
            return _Refused(404, "InvalidAccessKeyId.NotFound", text)
        if not key.active:
            text = "Specified access key is disabled."
            return _Refused(400, "InvalidAccessKeyId.Inactive", text)
        if key.security_token != signed.security_token:
            text = "Specified SecurityToken is not valid."
            return _Refused(400, "InvalidSecurityToken.MismatchWithAccessKey", text)
        if key.expires_at <= now:
            text = "Specified SecurityToken is expired."
            return _Refused(400, "InvalidSecurityToken.Expired", text)
        expected = signed.sign(key.secret, signed.string_to_sign)
        if not hmac.compare_digest(expected.encode(), signed.signature.encode()):
            text = (
                "Specified signature is not matched with our calculation. "
                f"server string to sign is:{signed.string_to_sign}"
            )
            return _Refused(400, "SignatureDoesNotMatch", text)
        return self._used(signed, now)

    def _used(self, signed: _Signed, now: float) -> "_Refused | None":
        if len(self._nonces) > 10_000:
            self._nonces = {k: at for k, at in self._nonces.items() if now - at < 3600}
        nonce = (signed.access_key_id, signed.nonce)
        if nonce in self._nonces:
            text = "Specified signature nonce was used already."
            return _Refused(400, "SignatureNonceUsed", text)
        self._nonces[nonce] = now
        return None

    # -- the actions -------------------------------------------------------------------------

    def _instance(self, parameters: Parameters) -> "Store | _Refused":
        instance_id = parameters.get("InstanceId", "")
        if not instance_id:
            return _missing("InstanceId")
        store = self.flows.get(instance_id)
        if store is None:
            text = f"The specified instance {instance_id} does not exist."
            return _Refused(404, "NotExists.InstanceId", text)
        return store

    def _list_contact_flows(self, parameters: Parameters) -> "dict[str, object] | _Refused":
        store = self._instance(parameters)
        window = self._window(parameters)
        if isinstance(store, _Refused):
            return store
        if isinstance(window, _Refused):
            return window
        for name, allowed in _CHOICES.items():
            if parameters.get(name) and parameters[name] not in allowed:
                return _Refused(400, "InvalidParameter", f"The parameter {name} is not valid.")
        kind, pattern = parameters.get("Type"), parameters.get("SearchPattern")

        def wanted(flow: Any) -> bool:
            if not isinstance(flow, dict):
                return False
            text = f"{flow.get('Name') or ''}\n{flow.get('Description') or ''}"
            return (not kind or flow.get("Type") == kind) and (not pattern or pattern in text)

        rows = store.listed(
            by_update=True,
            descending=parameters.get("SortOrder") != "ASC",
            ties=self.ties,
            wanted=wanted if kind or pattern else None,
        )
        return _page(window, rows, lambda row: msgspec.Raw(row.json))

    def _get_contact_flow(self, parameters: Parameters) -> "dict[str, object] | _Refused":
        """A list row without its numbers. A published flow has no draft id and cannot be got."""
        store = self._instance(parameters)
        if isinstance(store, _Refused):
            return store
        for name in ("ContactFlowId", "DraftId"):
            if not parameters.get(name):
                return _missing(name)
        text = store.find(parameters["ContactFlowId"])
        flow = {} if text is None else msgspec.json.decode(text)
        if text is None or flow.get("DraftId") != parameters["DraftId"]:
            flow_id = parameters["ContactFlowId"]
            gone = f"The specified contact flow {flow_id} does not exist."
            return _Refused(404, "NotExists.ContactFlowId", gone)
        return {name: value for name, value in flow.items() if name != "NumberList"}

    def _list_phone_numbers(self, parameters: Parameters) -> "dict[str, object] | _Refused":
        """The numbers of an instance, each with the flow it reaches."""
        store = self._instance(parameters)
        window = self._window(parameters)
        if isinstance(store, _Refused):
            return store
        if isinstance(window, _Refused):
            return window
        numbers = [
            {
                "Number": number,
                "ContactFlowId": flow.get("ContactFlowId"),
                "ContactFlowName": flow.get("Name"),
                "InstanceId": parameters["InstanceId"],
                "Active": True,
                "Usage": "Bidirection",
                "City": "",
                "Province": "",
                "Provider": "",
                "CreateTime": "1615000000000",
                "SkillGroups": [],
                "Tags": "",
                "UserId": "",
            }
            for flow in store.records()
            if isinstance(flow, dict)
            for number in flow.get("NumberList") or []
            if parameters.get("SearchPattern", "") in number
        ]
        return _page(window, numbers)

    def _list_instances(self, parameters: Parameters) -> "dict[str, object] | _Refused":
        window = self._window(parameters)
        if isinstance(window, _Refused):
            return window
        instances = [
            {
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
            for instance_id in self.flows
        ]
        return _page(window, instances)

    def _window(self, parameters: Parameters) -> "tuple[int, int] | _Refused":
        """PageNumber and PageSize; both required, both 1 to 100."""
        numbers = []
        for name in ("PageNumber", "PageSize"):
            if not parameters.get(name):
                return _missing(name)
            number = whole_number(parameters[name])
            if number is None:
                return _Refused(400, "InvalidParameter.Format", f"{name} is not a number.")
            if number < 1:
                return _Refused(400, "Parameter.Minimum", f"{name} is less than 1.")
            if number > 100 and not (self.unlimited_pages and name == "PageNumber"):
                return _Refused(400, "Parameter.Maximum", f"{name} is greater than 100.")
            numbers.append(number)
        return numbers[0], numbers[1]


@dataclass(frozen=True, slots=True)
class _Refused:
    status: int
    code: str
    message: str


_NO_SUCH_API = "Specified api is not found, please check your url and method."

_CHOICES = {
    "Type": ("MAIN_FLOW", "SUB_FLOW", "SURVEY_FLOW"),
    "SortOrder": ("ASC", "DESC"),
    "OrderByField": ("updatedTime",),
}


def _missing(name: str) -> _Refused:
    return _Refused(400, f"Missing{name}", f"{name} is mandatory for this action.")


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


def _parameters(request: Request) -> list[tuple[str, str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form: list[tuple[str, str]] = []
    if kind == "application/x-www-form-urlencoded":
        form = parse_qsl(request.body.decode("latin-1"), keep_blank_values=True)
    return request.query + form


def _read_v3(request: Request) -> _Signed | _Refused | None:
    headers = request.headers
    authorization = headers.get("authorization")
    if authorization is None:
        return None
    parts = _AUTHORIZATION.fullmatch(authorization)
    names = frozenset(parts[2].split(";")) if parts else frozenset()
    if parts is None or not MUST_BE_SIGNED <= names <= headers.keys():
        text = "The request signature does not conform to Aliyun standards."
        return _Refused(400, "IncompleteSignature", text)
    token = headers.get("x-acs-security-token")
    if token is not None and "x-acs-security-token" not in names:
        text = "The request signature does not conform to Aliyun standards."
        return _Refused(400, "IncompleteSignature", text)
    return _Signed(
        version=headers["x-acs-version"],
        action=headers["x-acs-action"],
        access_key_id=parts[1],
        nonce=headers["x-acs-signature-nonce"],
        date=headers["x-acs-date"],
        max_age=timedelta(minutes=15),
        security_token=token,
        signature=parts[3],
        string_to_sign=signature.v3_string_to_sign(
            request.method, request.query, headers, names, request.body
        ),
        sign=signature.v3_signature,
    )


def _read_v1(request: Request, parameters: list[tuple[str, str]]) -> _Signed | _Refused:
    given = dict(parameters)
    for name in (
        "AccessKeyId",
        "Action",
        "Version",
        "Timestamp",
        "SignatureNonce",
        "SignatureMethod",
        "SignatureVersion",
        "Signature",
    ):
        if not given.get(name):
            return _missing(name)
    if (given["SignatureMethod"], given["SignatureVersion"]) != ("HMAC-SHA1", "1.0"):
        text = "The request signature does not conform to Aliyun standards."
        return _Refused(400, "IncompleteSignature", text)
    if given.get("Format", "XML").upper() != "JSON":
        text = "The sandbox answers in JSON only: send Format=JSON (the service's default is XML)."
        return _Refused(400, "InvalidParameter.Format", text)
    return _Signed(
        version=given["Version"],
        action=given["Action"],
        access_key_id=given["AccessKeyId"],
        nonce=given["SignatureNonce"],
        date=given["Timestamp"],
        max_age=timedelta(minutes=31),
        security_token=given.get("SecurityToken"),
        signature=given["Signature"],
        string_to_sign=signature.v1_string_to_sign(request.method, parameters),
        sign=signature.v1_signature,
    )


# -- the error answers, for the emulator and as the `response` of a Fault ------------------------


def error(
    status: int,
    code: str,
    message: str,
    request_id: str = "SANDBOX-REQUEST",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The gateway's error body (Alibaba's docs, 'Common error codes')."""
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
    """Too many calls. The documents say HTTP 400; `retry_after_ms` adds `x-acs-retry-after`."""
    headers = {} if retry_after_ms is None else {"x-acs-retry-after": str(retry_after_ms)}
    text = "Request was denied due to user flow control."
    return error(status, code, text, headers=headers)


def unavailable() -> Response:
    """The service is away."""
    text = "The request has failed due to a temporary failure of the server."
    return error(503, "ServiceUnavailable", text)


def not_ok(code: str = "InternalError", message: str = "boom", status: int = 500) -> Response:
    """HTTP 200 with the failure in the envelope."""
    body = {"Code": code, "HttpStatusCode": status, "Message": message, "RequestId": "R5"}
    return json_response(200, body)
