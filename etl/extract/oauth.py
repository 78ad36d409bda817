"""OAuth 2.0 client credentials: one access token per run, renewed in time.

The rules are those of RFC 6749, section 4.4.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from etl.errors import ContractError, CredentialsError, Retry
from etl.extract.answer import Answer
from etl.extract.url import basic
from etl.extract.verdict import busy, judge_status

if TYPE_CHECKING:
    from etl.extract.http import Seam

_LONGEST_LIFE = 86400.0
_SCOPES = 100_000  # characters of them that are read
_RENEW_BEFORE = 60.0  # seconds, as Zoom's own SDK (@zoom/rivet) does


@dataclass(frozen=True, slots=True)
class Client:
    """The client that asks for tokens, and how messages name it.

    `form`     the parameters of the token request, besides the client's id and secret.
    `provider` its name; `app` what it calls the client; `settings` the keys to check.
    `active`   what must be true of the app so that its tokens are accepted.
    """

    token_url: str
    client_id: str
    client_secret: str
    form: Mapping[str, str]
    provider: str
    app: str
    settings: str
    active: str


class AccessToken:
    """Signs requests with an access token.

    The token is fetched when it is first needed, and renewed when 60 s or less remain. The seam's
    redactor learns it, so that no message shows it, and its budget pays for the requests. `scopes`
    are those of the current token; empty before the first fetch.
    """

    def __init__(self, client: Client, seam: "Seam") -> None:
        self.scopes: frozenset[str] = frozenset()
        self._client = client
        self._seam = replace(seam, where=f"{seam.where}, access token", setting="token_url")
        self._token = ""
        self._renew_at = 0.0
        self._suspect = False

    def __call__(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers that authorise a request. Raise what fetching a token raises."""
        if not self._token or self._seam.clock() >= self._renew_at:
            self._fetch()
        return {"authorization": f"Bearer {self._token}"}

    def accepted(self) -> None:
        """Note that the provider accepted the token."""
        self._suspect = False

    def refused(self, said: str) -> Exception:
        """Return the verdict on a request whose token was refused: renew it once, then give up."""
        error = CredentialsError(
            f"{self._client.provider} refuses the access token: {said}",
            where=self._seam.where,
            advice=f"check that {self._client.active}",
        )
        if self._suspect:
            return error
        self._suspect, self._token = True, ""
        return Retry(error, backoff=False)

    def _fetch(self) -> None:
        from etl.extract.http import Http

        client, seam = self._client, self._seam
        authorization = basic(client.client_id, client.client_secret)
        started = seam.clock()
        with Http(
            client.token_url,
            seam,
            sign=lambda method, url, body: {"authorization": authorization},
            judge=self._judge,
        ) as http:
            # In the body, because some Zoom accounts get HTTP 400 for parameters in the query.
            answer = http.call("POST", "", form=client.form)
        token, life, scope = (answer.get(k) for k in ("access_token", "expires_in", "scope"))
        if isinstance(token, str):
            seam.redact.learn(token)
        if not isinstance(token, str) or not re.fullmatch("[!-~]{1,16384}", token):
            raise ContractError(
                "the answer holds no access token", where=seam.where, advice="check token_url"
            )
        self._token = token
        self._renew_at = started + _life(life) - _RENEW_BEFORE
        self.scopes = frozenset(scope[:_SCOPES].split()) if isinstance(scope, str) else frozenset()

    def _judge(self, answer: Answer) -> None:
        """Judge the token endpoint's answers, whose errors are OAuth's: HTTP 400 or 401."""
        if answer.slow_down:
            raise busy(answer)
        refused = answer.status in (400, 401, 403)
        if refused or (
            isinstance(answer.body, dict) and "error" in answer.body and answer.status < 300
        ):
            client = self._client
            raise CredentialsError(
                f"{client.provider} gives no access token: {answer.said}",
                advice=f"check {client.settings} of {client.app}, and that it is activated",
            )
        judge_status(answer)


def _life(expires_in: Any) -> float:
    """Return for how many seconds a token lives: an hour if `expires_in` cannot be true."""
    if isinstance(expires_in, str) and re.fullmatch("[0-9]{1,9}", expires_in):
        expires_in = int(expires_in)
    if type(expires_in) in (int, float) and 0 < expires_in <= _LONGEST_LIFE:
        return float(expires_in)
    return 3600.0
