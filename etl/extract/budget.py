"""What the requests of one run may cost: attempts, repeated requests, waits and time."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import tenacity

from etl.errors import ProviderError, Retry, UnavailableError
from etl.extract.verdict import ATTEMPTS

RETRIES, RETRY_SHARE = 10, 0.1
"""A run may repeat this many requests, plus this share of all its requests."""
MAX_ASKED_WAIT = 60.0
"""Seconds that a provider may ask callflow to wait; if it asks for more, the run ends."""

_JITTER = tenacity.wait_random_exponential(multiplier=0.5, max=30)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Budget:
    """What the requests of one run have cost so far, and whether one of them may be repeated.

    `requests`, `retries` and `received` (bytes of answers, unpacked) count since the start, those
    for access tokens too; `throttled` is the seconds slept for pacing, back-off and waits that the
    provider asked for. Nothing is repeated beyond RETRIES requests and a tenth of all, nor after
    the time that was allowed.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    requests: int = 0
    retries: int = 0
    received: int = 0
    throttled: float = 0.0
    allowed: float = math.inf
    until: float = math.inf

    def allow(self, seconds: float) -> None:
        """Give all later requests `seconds` in total, pauses included; after that none is sent."""
        self.allowed, self.until = seconds, self.clock() + seconds

    def pause(self, seconds: float) -> None:
        """Sleep, and count the time as throttled."""
        self.throttled += seconds
        self.sleep(seconds)

    def retrying(self, where: str) -> tenacity.Retrying:
        """Return what repeats a request while the verdict is `Retry` and the budget suffices.

        `where` names the request in the log.
        """
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retry),
            stop=self._is_spent,
            wait=_pause_before,
            before_sleep=partial(self._count_retry, where),
            sleep=self.pause,
            reraise=True,
        )

    def _is_spent(self, state: tenacity.RetryCallState) -> bool:
        verdict = _verdict(state)
        return (
            state.attempt_number >= (verdict.attempts or ATTEMPTS)
            or verdict.wait > MAX_ASKED_WAIT
            or self.clock() + verdict.wait >= self.until
            or self.retries >= RETRIES + self.requests * RETRY_SHARE
        )

    def given_up(self, last: Retry, where: str, attempts: int) -> ProviderError:
        """Return the error about a request that is not repeated any more, and why."""
        final = last.final
        where = final.where or where
        if last.wait > MAX_ASKED_WAIT:
            days = last.wait / 86400  # the redactor would take many digits for a phone number
            asked = f"{last.wait:.0f} s" if days < 10 else f"{days:.0f} days"
            return UnavailableError(
                f"{final.what}; it asks to wait {asked}, so this run gives up",
                where=where,
                advice="run again after that time",
                wait=last.wait,
            )
        if self.clock() + last.wait >= self.until:
            late = self.too_late()
            return UnavailableError(f"{late.what}; {final.what}", where=where, advice=late.advice)
        if attempts < (last.attempts or ATTEMPTS):
            return UnavailableError(
                f"{final.what}; {self.retries} of the {self.requests} requests of this run were"
                " repeated ones, so it gives up",
                where=where,
                advice="try again later; when it throttles, lower the source's requests_per_second",
            )
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return type(final)(f"{final.what} ({tries})", where=where, advice=final.advice)

    def too_late(self) -> UnavailableError:
        """Return the error about requests that took all of the time allowed."""
        return UnavailableError(
            f"not done within {self.allowed:g} s",
            advice="nothing was removed; if the list is that long, raise the source's scan_deadline"
            " or requests_per_second; if not, the provider gives pages without end",
        )

    def _count_retry(self, where: str, state: tenacity.RetryCallState) -> None:
        self.retries += 1
        log.info("%s: %s; asking again", where, _verdict(state))


def _verdict(state: tenacity.RetryCallState) -> Retry:
    verdict = state.outcome.exception() if state.outcome else None
    assert isinstance(verdict, Retry)
    return verdict


def _pause_before(state: tenacity.RetryCallState) -> float:
    verdict = _verdict(state)
    return verdict.wait + (_JITTER(state) if verdict.backoff else 0.0)
