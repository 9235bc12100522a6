"""A resource's pages as they are asked for: a place becomes a request, an answer becomes a page."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from zoneinfo import ZoneInfo

from yarl import URL

from connectors.http import address, paging, request
from connectors.http import page as pages
from connectors.http.client import Answer, Call, Client
from connectors.http.page import Page
from connectors.http.paging import Place
from connectors.http.redaction import excerpt
from connectors.http.resource import Paging, Resource, TimeFormat
from connectors.http.standing import Walk
from connectors.record import spell
from connectors.secret import Secrets
from connectors.secret_text import holds_reference
from schemas.errors import SourceMisconfigured, SourceUnavailable

_IN_THREAD_BYTES = 131_072  # smaller answers are parsed in less time than the way to a thread takes
_SECOND = timedelta(seconds=1)


class Pages:
    """
    The pages of one resource of one API, of one merchant where it has several.

    `zone` is where days begin. `private` names parameters that hold credentials, beside the resource's own: they are
    taken out of addresses before those are kept.
    """

    def __init__(
        self,
        resource: Resource,
        client: Client,
        url: URL,
        *,
        zone: ZoneInfo,
        most_records: int,
        secrets: Secrets,
        merchant_code: str = "",
        private: frozenset[str] = frozenset(),
    ) -> None:
        self._resource = resource
        self._client = client
        self._url = url
        self._zone = zone
        self._most_records = most_records
        self._merchant_code = merchant_code
        self._secrets = secrets
        self._private = private | {name for name, text in resource.query.items() if holds_reference(text)}

    async def fetch(self, walk: Walk) -> tuple[Page, Answer]:
        """
        The page at the walk's place, and the answer that it came in.

        Raises:
            SourceError: as its disposition says.
        """
        answer = await self._client.fetch(self._call(walk))
        if answer.body.strip() and not pages.is_json(answer.content_type):
            raise SourceUnavailable(
                f"the answer is {answer.content_type[:64]}, not JSON: {excerpt(answer.body, answer.secrets)}",
                hint="a page for people often means that a login or a proxy stands in the way",
            )
        parse = partial(pages.parse, answer.body, self._resource.records, most=self._most_records)
        page = await asyncio.to_thread(parse) if len(answer.body) > _IN_THREAD_BYTES else parse()
        failure = page.value(self._resource.failure)
        if failure not in (None, False, "", 0, [], {}):
            told = excerpt(spell(failure).encode("utf-8", "replace"), answer.secrets)
            raise SourceUnavailable(f"the answer says that it failed: {told}", hint="its status was 200 all the same")
        return page, answer

    def _call(self, walk: Walk) -> Call:
        resource, place = self._resource, walk.place
        values = paging.values_of(place, resource)
        values["merchant_code"] = self._merchant_code or None
        if walk.window is not None:
            begin, end = (at.astimezone(self._zone) for at in walk.window)
            last = end - _SECOND if resource.time_format is TimeFormat.DATE else end
            values |= {"from": resource.spell(begin), "to": resource.spell(last), "date": begin.date().isoformat()}
            if resource.paging is Paging.KEYSET and values["after_time"] is None:
                values["after_time"] = values["from"]
        made = request.call(
            self._url,
            method=resource.method,
            path=resource.path,
            query=resource.query,
            body=resource.body,
            values=values,
            secrets=self._secrets,
        )
        if "url" not in place:
            return made
        url = URL(place["url"])
        if not address.same_origin(self._url, url):
            raise SourceMisconfigured(f"the next page was at {address.shown(url)}, which is not the API's origin")
        return Call(url, resource.method, params=made.params, secrets=made.secrets)

    def kept(self, place: Place) -> Place:
        """The place without what nobody may read."""
        if "url" not in place:
            return place
        return {"url": str(address.without(URL(place["url"]), self._private))}
