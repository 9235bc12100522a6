"""What an answer other than 2xx means, and a failure to get one at all: the error that says what to do next."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from connectors.http import body
from connectors.http.redaction import excerpt, redacted
from connectors.ports import Clock
from schemas.errors import SourceMisconfigured, SourceThrottled, SourceUnauthorised, SourceUnavailable, TillError

_MOST_SAID = 160
_UNAUTHORISED = (401, 403)
_THROTTLED = 429
_TRANSIENT = (408, 425)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one request may take, and how much may come of it."""

    connect_s: float = 10.0
    read_s: float = 20.0
    total_s: float = 45.0
    response_bytes: int = 32 * body.MIB
    retry_after_max_s: float = 300.0


class Refused(Exception):
    """The API refuses the credentials."""

    def __init__(self, status: int, error: SourceUnauthorised) -> None:
        self.status = status
        self.error = error


def refusal(
    response: aiohttp.ClientResponse, said: str, *, source: str, clock: Clock, limits: Limits
) -> TillError | Refused:
    """What an answer other than 2xx means; `said` is the head of its body, without secrets."""
    status = response.status
    message = f"API responded with status {status}: {_phrase(response)}"  # seed 003's words
    if status in _UNAUTHORISED:
        error = SourceUnauthorised(message)
        if said:
            error.hint = f"{error.hint}; it said: {said}"
        return Refused(status, error)
    after_s = min(_retry_after(response.headers.get("Retry-After"), clock), limits.retry_after_max_s)
    if status == _THROTTLED or (status == HTTPStatus.SERVICE_UNAVAILABLE and after_s):
        return SourceThrottled(source, retry_after_s=after_s)
    told = f"{message}: {said}" if said else message
    if status >= 500 or status in _TRANSIENT:
        failed = SourceUnavailable(told, hint="the API fails of itself; reading resumes when it works again")
        failed.retry_after_s = after_s
        return failed
    return SourceMisconfigured(told, hint="compare the request's path and parameters with the API's documentation")


def failure(exc: Exception, where: str, secrets: frozenset[str]) -> TillError:
    """What a failure below HTTP means."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return SourceMisconfigured(
            f"{where}: the certificate is not accepted: {exc.certificate_error}",
            hint="is the host name right? A private authority is named in tls_authorities",
        )
    if isinstance(exc, aiohttp.ClientSSLError) and not isinstance(_cause(exc), ssl.SSLEOFError):
        return SourceMisconfigured(
            f"{where}: no TLS connection: {getattr(_cause(exc), 'reason', None) or 'the handshake failed'}",
            hint="does the server speak TLS 1.2 or newer, and want a client certificate?",
        )
    if isinstance(exc, aiohttp.InvalidURL):
        return SourceMisconfigured(f"{where} is no address that can be asked")
    if isinstance(exc, TimeoutError):
        phase = "connecting to" if isinstance(exc, aiohttp.ConnectionTimeoutError) else "reading from"
        return SourceUnavailable(f"timeout in {phase} {where}")
    if isinstance(exc, aiohttp.ClientResponseError):
        # what follows the colon are bytes of the answer
        return SourceUnavailable(f"{where}: the answer is not HTTP: {exc.message.partition(':')[0]}"[:_MOST_SAID])
    if isinstance(exc, aiohttp.ClientConnectorError):
        failed = exc.os_error
        return SourceUnavailable(f"{where}: cannot connect: {failed.strerror or type(failed).__name__}")
    said = redacted(str(exc).partition("\n")[0], secrets)[:_MOST_SAID]
    return SourceUnavailable(f"{where}: {type(exc).__name__}: {said}")


def _retry_after(value: str | None, clock: Clock) -> float:
    """Seconds that the header asks for, in either of its forms: RFC 9110, 10.2.3. 0 where it says nothing."""
    if not value:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        until = parsedate_to_datetime(value)
        return max(0.0, (until - clock.now()).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _phrase(response: aiohttp.ClientResponse) -> str:
    """The standard's words for a status, whatever the server calls it."""
    try:
        return HTTPStatus(response.status).phrase
    except ValueError:
        return excerpt((response.reason or "").encode(), (), limit=60) or "unknown"


def _cause(exc: aiohttp.ClientSSLError) -> BaseException | None:
    return getattr(exc, "os_error", None) or exc.__cause__
