"""Verdicts on answers: good, ask again, or an error; and those that HTTP's status alone gives."""

from collections.abc import Callable

from etl.errors import ContractError, CredentialsError, Retry, UnavailableError
from etl.extract.answer import Answer

ATTEMPTS = 6
"""Requests in total for one answer, unless a verdict allows fewer."""

IF_IT_STAYS = "nothing is deleted; run again, and report it to the provider if it stays"
"""The advice about an answer that only the provider can explain."""


Judge = Callable[[Answer], None]
"""Returns for a good answer; raises `Retry` or a ProviderError for any other."""


def judge_status(answer: Answer) -> None:
    """Judge by the HTTP status, for answers whose provider-specific codes do not decide.

    Raise Retry for 408, 429, 5xx and words that say there were too many requests, CredentialsError
    for 401 and 403, and ContractError for everything else that is not 2xx.
    """
    if 200 <= answer.status < 300:
        return
    if answer.status in (408, 429) or answer.status >= 500 or answer.slow_down:
        raise busy(answer)
    what = f"HTTP {answer.status}: {answer.said}"
    if answer.status in (401, 403):
        raise CredentialsError(what, advice="check the source's credentials and their permissions")
    raise ContractError(what, advice="check base_url and the source's settings")


def busy(answer: Answer) -> Retry:
    """Return the verdict on a throttled request (wait a second at least) or a failing server."""
    if answer.wait is not None:
        wait = max(0.0, answer.wait)
    else:
        wait = 0.0 if answer.status >= 500 else 1.0
    return Retry(
        UnavailableError(
            f"HTTP {answer.status}: {answer.said}",
            advice="try again later; when it throttles, lower the source's requests_per_second",
        ),
        wait=wait,
    )
