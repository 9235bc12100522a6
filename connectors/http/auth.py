"""
Credentials for requests: none, basic, bearer, an API key, OAuth2 client credentials.

Secrets are resolved at each request, so that a changed one needs no restart. An access token is fetched once for all
who need it: before it expires, and once more when the API refuses it all the same.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from connectors.ports import Clock
from connectors.secret import Secrets
from connectors.secret_text import filled, one_line
from schemas.errors import SourceMisconfigured, SourceUnavailable

_LIFETIME_S = 300.0  # of a token whose server does not tell
_MARGIN = 0.1  # of a token's life: it is renewed that much before its end
_MOST_MARGIN_S = 60.0


class AuthKind(StrEnum):
    """How the API is convinced. `ip_whitelist` is none of ours: the provider knows our address."""

    NONE = "none"
    IP_WHITELIST = "ip_whitelist"
    BASIC = "basic"
    BEARER = "bearer"
    API_KEY = "api_key"
    OAUTH2 = "oauth2"


class KeyPlace(StrEnum):
    """Where an API key stands."""

    HEADER = "header"
    QUERY = "query"


class ClientPlace(StrEnum):
    """Where an OAuth2 client shows its id and secret: RFC 6749, 2.3.1."""

    HEADER = "header"
    BODY = "body"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request carries, and every text in it that must show nowhere."""

    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()
    # whom they are made of, for those who made them
    parts: tuple[Credentials, ...] = ()


class Auth(Protocol):
    """Gives each request its credentials."""

    @property
    def params(self) -> frozenset[str]:
        """Names of parameters that hold credentials: they are taken out of addresses that are kept."""
        ...

    async def credentials(self) -> Credentials:
        """
        What the next request carries.

        Raises:
            SourceError: there is none, or it cannot be had now.
        """
        ...

    def refused(self, used: Credentials) -> bool:
        """The API answered 401 to these: whether other ones can be had at once."""
        ...


class StaticAuth:
    """Credentials that are the same until somebody changes a secret."""

    def __init__(self, make: Callable[[], Credentials], params: frozenset[str] = frozenset()) -> None:
        self._make = make
        self.params = params

    async def credentials(self) -> Credentials:
        """As configured, with the secrets of this moment."""
        return self._make()

    def refused(self, used: Credentials) -> bool:
        """There are no others, unless a secret was changed meanwhile."""
        return self._make() != used


def no_auth() -> StaticAuth:
    """Requests that carry nothing."""
    return StaticAuth(Credentials)


def basic(secrets: Secrets, username: str, password: str) -> StaticAuth:
    """RFC 7617. Both are references; an empty one stands for the empty text."""

    def make() -> Credentials:
        pair = f"{secrets.resolve(username)}:{secrets.resolve(password)}"
        name, _, word = pair.partition(":")
        secrets.learn(pair)
        return Credentials(
            {"Authorization": f"Basic {encoded(pair)}"}, secrets=frozenset({pair, word or name, encoded(pair)})
        )

    return StaticAuth(make)


def bearer(secrets: Secrets, token: str) -> StaticAuth:
    """RFC 6750, with a token that does not expire."""

    def make() -> Credentials:
        value = one_line(secrets.resolve(token))
        return Credentials({"Authorization": f"Bearer {value}"}, secrets=frozenset({value}))

    return StaticAuth(make)


def api_key(secrets: Secrets, key: str, *, name: str, place: KeyPlace) -> StaticAuth:
    """A key in a header or a parameter of the API's own."""

    def make() -> Credentials:
        value = one_line(secrets.resolve(key))
        if place is KeyPlace.QUERY:
            return Credentials(params={name: value}, secrets=frozenset({value}))
        return Credentials({name: value}, secrets=frozenset({value}))

    return StaticAuth(make, frozenset({name}) if place is KeyPlace.QUERY else frozenset())


class WithHeaders:
    """Other credentials, and headers beside them: texts, with references to secrets in them."""

    def __init__(self, inner: Auth, secrets: Secrets, headers: Mapping[str, str]) -> None:
        self._inner = inner
        self._secrets = secrets
        self._headers = headers
        self.params = inner.params

    async def credentials(self) -> Credentials:
        """The others' and these."""
        inner, own = await self._inner.credentials(), self._own()
        return Credentials(
            {**own.headers, **inner.headers}, inner.params, inner.secrets | own.secrets, parts=(inner, own)
        )

    def refused(self, used: Credentials) -> bool:
        """Whether the others can be renewed, or a secret of these was changed meanwhile."""
        inner, own = used.parts
        return self._inner.refused(inner) or self._own() != own

    def _own(self) -> Credentials:
        found = {name: filled(text, self._secrets) for name, text in self._headers.items()}
        secrets = frozenset[str]().union(*(used for _, used in found.values()))
        return Credentials({name: text for name, (text, _) in found.items()}, secrets=secrets)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and until when it is taken for good."""

    value: str
    renew_at_s: float
    secrets: frozenset[str] = field(default_factory=frozenset)


class OAuth2:
    """
    Client credentials, RFC 6749 4.4. However many wait for a token, one request asks for it.

    `ask` sends that request and gives the answer's members, and the secrets that went into it.
    """

    params: frozenset[str] = frozenset()

    def __init__(
        self,
        ask: Callable[[], Awaitable[tuple[Mapping[str, object], frozenset[str]]]],
        *,
        clock: Clock,
        secrets: Secrets,
    ) -> None:
        self._ask = ask
        self._secrets = secrets
        self._clock = clock
        self._token: Token | None = None
        self._asking: asyncio.Task[Token] | None = None

    async def credentials(self) -> Credentials:
        """The token that holds, or a new one."""
        token = self._token
        if token is None or self._clock.monotonic() >= token.renew_at_s:
            token = await self._renewed()
        return Credentials({"Authorization": f"Bearer {token.value}"}, secrets=token.secrets)

    def refused(self, used: Credentials) -> bool:
        """Forget the token, unless it was already succeeded by another."""
        token = self._token
        if token is not None and used.headers.get("Authorization") == f"Bearer {token.value}":
            self._token = None
        return True

    async def close(self) -> None:
        """Wait for nobody any more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _renewed(self) -> Token:
        if self._asking is None:
            self._asking = asyncio.create_task(self._fetch(), name="oauth2 token")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, asking: asyncio.Task[Token]) -> None:
        self._asking = None
        if not asking.cancelled() and asking.exception() is None:
            self._token = asking.result()

    async def _fetch(self) -> Token:
        asked_s = self._clock.monotonic()
        answer, secrets = await self._ask()
        value, kind = answer.get("access_token"), answer.get("token_type", "bearer")
        if not isinstance(value, str) or not value:
            raise SourceUnavailable("the token endpoint's answer holds no access_token")
        self._secrets.learn(value)
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise SourceMisconfigured("the token endpoint gives tokens of another type than bearer")
        life_s = _seconds(answer.get("expires_in"))
        return Token(
            one_line(value), asked_s + life_s - min(_MARGIN * life_s, _MOST_MARGIN_S), secrets | frozenset({value})
        )


def encoded(pair: str) -> str:
    """Base64 of a user and a password."""
    return base64.b64encode(pair.encode()).decode()


def _seconds(value: object) -> float:
    try:
        return max(0.0, float(str(value)))
    except ValueError:
        return _LIFETIME_S
