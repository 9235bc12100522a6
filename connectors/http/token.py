"""An access token from an OAuth2 token endpoint: client credentials, RFC 6749 4.4."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from yarl import URL

from connectors.http import address
from connectors.http.auth import ClientPlace, encoded
from connectors.http.client import Call, Client
from schemas.errors import SourceMisconfigured, SourceUnauthorised, SourceUnavailable


async def ask(
    client: Client, url: URL, *, client_id: str, client_secret: str, place: ClientPlace, scope: str
) -> tuple[Mapping[str, object], frozenset[str]]:
    """
    The members of the answer, and the secrets that went into the request.

    Raises:
        SourceUnauthorised: pause; the endpoint refuses the client. SourceUnavailable, SourceThrottled: retry.
    """
    form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
    headers = {}
    pair = f"{client_id}:{client_secret}"
    if place is ClientPlace.BODY:
        form |= {"client_id": client_id, "client_secret": client_secret}
    else:
        headers["Authorization"] = f"Basic {encoded(pair)}"
    secrets = frozenset({client_secret, pair, encoded(pair)})
    where = f"token endpoint {address.shown(url)}"
    try:
        answer = await client.fetch_open(Call(url, "POST", form=form, headers=headers, secrets=secrets))
    except (SourceMisconfigured, SourceUnauthorised) as exc:
        # an endpoint may say with any 4xx that it does not know the client
        raise SourceUnauthorised(f"{where}: {exc}", hint=exc.hint) from None
    except SourceUnavailable as exc:
        error = SourceUnavailable(f"{where}: {exc}", hint=exc.hint)
        error.retry_after_s = exc.retry_after_s
        raise error from None
    try:
        members = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        members = None
    if not isinstance(members, dict):
        raise SourceUnavailable(f"{where}: the answer is no JSON object")
    return members, secrets
