"""Minimal clients for each API, without any code of callflow's extractors."""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from etl.sandbox.alibaba import Alibaba
from etl.sandbox.twilio import Twilio
from etl.sandbox.zoom import Zoom

Params = dict[str, str]


def zoom_token(http: httpx.Client, zoom: Zoom) -> str:
    answer = http.post(
        f"{zoom.url}/oauth/token",
        data={"grant_type": "account_credentials", "account_id": zoom.account_id},
        auth=(zoom.client_id, zoom.client_secret),
    )
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    assert isinstance(token, str)
    return token


def zoom_get(
    http: httpx.Client, zoom: Zoom, token: str, path: str = "", **params: str
) -> httpx.Response:
    url = f"{zoom.url}/v2/contact_center/flows{path}"
    return http.get(url, params=params, headers={"Authorization": f"Bearer {token}"})


def zoom_pages(http: httpx.Client, zoom: Zoom, **params: str) -> list[list[str]]:
    """Return the ids of every page."""
    token = zoom_token(http, zoom)
    pages = []
    while True:
        page = zoom_get(http, zoom, token, **params).json()
        pages.append([flow["flow_id"] for flow in page["flows"]])
        if not page.get("next_page_token"):
            return pages
        params["next_page_token"] = page["next_page_token"]


def twilio_get(http: httpx.Client, twilio: Twilio, path: str, **params: str) -> httpx.Response:
    query = f"?{urlencode(params)}" if params else ""
    auth = (twilio.account_sid, twilio.auth_token)
    return http.get(f"{twilio.url}/v1/{path}{query}", auth=auth)


def twilio_pages(http: httpx.Client, twilio: Twilio, path: str, **params: str) -> list[list[str]]:
    """Return the sids of every page; next_page_url is followed unchanged."""
    answer, pages = twilio_get(http, twilio, path, **params), []
    while True:
        page = answer.json()
        pages.append([row["sid"] for row in page[page["meta"]["key"]]])
        if page["meta"]["next_page_url"] is None:
            return pages
        auth = (twilio.account_sid, twilio.auth_token)
        answer = http.get(page["meta"]["next_page_url"], auth=auth)


def v3_headers(alibaba: Alibaba, action: str = "ListContactFlows") -> Params:
    """Return all headers except Authorization, for the emulator's present time and no body."""
    key = alibaba.keys[alibaba.access_key_id]
    headers = {
        "host": alibaba.url.removeprefix("http://"),
        "x-acs-action": action,
        "x-acs-version": "2020-07-01",
        "x-acs-date": datetime.fromtimestamp(alibaba.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": secrets.token_hex(16),
        "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
    }
    if key.security_token is not None:
        headers["x-acs-security-token"] = key.security_token
    return headers


def v3_authorization(method: str, params: Params, headers: Params, key_id: str, secret: str) -> str:
    """Return the Authorization that Alibaba's own library makes: it signs all that it is given."""
    names = ";".join(sorted(headers))
    lines = [method, "/", urlencode(sorted(params.items()), quote_via=quote, safe="~")]
    lines += [f"{name}:{headers[name].strip()}" for name in sorted(headers)]
    lines += ["", names, headers["x-acs-content-sha256"]]
    text = "ACS3-HMAC-SHA256\n" + hashlib.sha256("\n".join(lines).encode()).hexdigest()
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={digest}"


def v3_send(
    http: httpx.Client,
    alibaba: Alibaba,
    headers: Params,
    params: Params,
    *,
    method: str = "POST",
) -> httpx.Response:
    """Sign what is given as Alibaba's own library would and send it."""
    authorization = v3_authorization(
        method, params, headers, alibaba.access_key_id, alibaba.access_key_secret
    )
    url = f"{alibaba.url}/?{urlencode(params)}"
    return http.request(method, url, headers={**headers, "authorization": authorization})


def alibaba_call(
    http: httpx.Client, alibaba: Alibaba, action: str = "ListContactFlows", **params: str
) -> httpx.Response:
    return v3_send(http, alibaba, v3_headers(alibaba, action), params)


def alibaba_get(http: httpx.Client, alibaba: Alibaba, action: str, **params: str) -> Any:
    answer = alibaba_call(http, alibaba, action, **params)
    assert answer.status_code == 200, answer.text
    assert answer.json()["Code"] == "OK"
    return answer.json()["Data"]
