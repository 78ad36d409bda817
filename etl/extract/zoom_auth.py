"""Zoom's server-to-server OAuth: one access token per run, renewed in time."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from etl.config.redact import Redactor
from etl.config.settings import ZoomSource, redactor
from etl.errors import ContractError, CredentialsError, Retry
from etl.extract.http import Answer, Http, basic, busy, judge_status, utc_now
from etl.extract.route import route_of

_LONGEST_LIFE = 86400.0
_SCOPES = 100_000  # characters of them that are read
_RENEW_BEFORE = 60.0  # seconds, as Zoom's own SDK (@zoom/rivet) does


class ZoomToken:
    """Signs requests with an access token (Zoom's docs, "Server-to-Server OAuth").

    The token is fetched when it is first needed, kept, and renewed when 60 s or less remain. It is
    one of the secrets that `redact` hides.
    `scopes` are the ones that the current token carries; empty before the first fetch.
    """

    def __init__(
        self,
        settings: ZoomSource,
        where: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = utc_now,
        redact: Redactor | None = None,
    ) -> None:
        self._redact = redact or redactor(settings)
        self.scopes: frozenset[str] = frozenset()
        self._settings = settings
        self._where = f"{where}, access token"
        self._clock = clock
        self._sleep = sleep
        self._now = now
        self._token = ""
        self._renew_at = 0.0
        self._suspect = False

    def __call__(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """The headers that authorise a request. Raises what fetching a token raises."""
        if not self._token or self._clock() >= self._renew_at:
            self._fetch()
        return {"authorization": f"Bearer {self._token}"}

    def accepted(self) -> None:
        """Zoom took the token."""
        self._suspect = False

    def refused(self, said: str) -> Exception:
        """The verdict on a request whose token Zoom refused: renew it once, then give up."""
        error = CredentialsError(
            f"Zoom refuses the access token: {said}",
            where=self._where,
            advice="check that the server-to-server OAuth app is activated in the Zoom marketplace",
        )
        if self._suspect:
            return error
        self._suspect, self._token = True, ""
        return Retry(error, backoff=False)

    def _fetch(self) -> None:
        settings = self._settings
        authorization = basic(settings.client_id, settings.client_secret.get_secret_value())
        started = self._clock()
        with Http(
            settings.token_url,
            sign=lambda method, url, body: {"authorization": authorization},
            judge=_judge,
            where=self._where,
            timeout=settings.timeout,
            route=route_of(settings),
            clock=self._clock,
            sleep=self._sleep,
            now=self._now,
            redact=self._redact,
        ) as http:
            # In the body: with the parameters in the query some accounts get HTTP 400.
            form = {"grant_type": "account_credentials", "account_id": settings.account_id}
            answer = http.call("POST", "", form=form)
        token, life, scope = (answer.get(k) for k in ("access_token", "expires_in", "scope"))
        if isinstance(token, str):
            self._redact.learn(token)
        if not isinstance(token, str) or not re.fullmatch("[!-~]{1,16384}", token):
            raise ContractError(
                "the answer holds no access token",
                where=self._where,
                advice="check token_url",
            )
        self._token = token
        self._renew_at = started + _life(life) - _RENEW_BEFORE
        self.scopes = frozenset(scope[:_SCOPES].split()) if isinstance(scope, str) else frozenset()


def _life(told: Any) -> float:
    """Seconds for which a token lives, as `expires_in` tells: an hour where that cannot be."""
    if isinstance(told, str) and re.fullmatch("[0-9]{1,9}", told):
        told = int(told)
    if type(told) in (int, float) and 0 < told <= _LONGEST_LIFE:
        return float(told)
    return 3600.0


def _judge(answer: Answer) -> None:
    """The token endpoint's errors are OAuth's: `error` and `reason`, HTTP 400 or 401."""
    if answer.slow_down:
        raise busy(answer)
    refused = answer.status in (400, 401, 403)
    if refused or (
        isinstance(answer.body, dict) and "error" in answer.body and answer.status < 300
    ):
        raise CredentialsError(
            f"Zoom gives no access token: {answer.said}",
            advice="check account_id, client_id and client_secret of the server-to-server OAuth"
            " app, and that it is activated",
        )
    judge_status(answer)
