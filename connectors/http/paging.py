"""
From page to page. A *place* is what the next request says of where it stands: a small JSON object, kept in cursors.

Nothing here does I/O, and nothing trusts the API: a place that was asked for before, the page of before once more, or
page after page without a record end the walk with an error instead of going on for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yarl import URL

from connectors.http import address
from connectors.http.client import Answer
from connectors.http.page import Page
from connectors.http.resource import Paging, Resource
from connectors.json_path import JsonPath
from schemas.errors import SourceMisconfigured, SourceUnavailable

# JSON: it goes through checkpoints
Place = Mapping[str, Any]

FIRST: Place = {}
_MOST_EMPTY = 20  # pages in a row without a record, from an API that says that there is more
_MOST_SAME = 3  # times that a page is the one before: rows that come at a list's head push its end along
_MOST_TOKEN = 8_192


def values_of(place: Place, resource: Resource) -> dict[str, str | int | None]:
    """What a request's places stand for at this place."""
    values: dict[str, str | int | None] = {"size": resource.page_size}
    match resource.paging:
        case Paging.PAGE:
            values["page"] = place.get("page", resource.first_page)
        case Paging.OFFSET:
            values["offset"] = place.get("offset", 0)
        case Paging.CURSOR:
            values["cursor"] = place.get("cursor")
        case Paging.KEYSET:
            values["after_id"], values["after_time"] = place.get("id"), place.get("time")
    return values


def following(
    resource: Resource, place: Place, page: Page, answer: Answer, *, last: Mapping[str, object] | None
) -> Place | None:
    """
    The place after this page; None if it was the last. `last` is its last record, where that could be read.

    Raises:
        SourceMisconfigured: the next address leads away from the API. SourceUnavailable: the answer makes no sense.
    """
    # what is not there says nothing: to take it for "no" would lose every page but the first
    if resource.more and page.value(resource.more) in (False, 0, "false", ""):
        return None
    match resource.paging:
        case Paging.NONE:
            return None
        case Paging.CURSOR:
            token = page.value(resource.next)
            return None if token in (None, "", False) else {"cursor": _token(token)}
        case Paging.LINK:
            return _linked(resource, page, answer)
    if not len(page) or (resource.last_page == "short" and len(page) < resource.page_size):
        return None
    match resource.paging:
        case Paging.PAGE:
            return {"page": place.get("page", resource.first_page) + 1}
        case Paging.OFFSET:
            # by what came, not by what was asked for: some APIs give less
            return {"offset": place.get("offset", 0) + len(page)}
    after = _after(resource, last)
    if after != place:
        return after
    if len(page) >= resource.page_size:
        raise SourceMisconfigured(
            f"a page of {len(page)} records is of one instant, and the next one would begin with it again",
            hint="raise page_size, or add {after_id} if the API knows it",
        )
    return None


def resting(
    resource: Resource, place: Place, page: Page, answer: Answer, *, last: Mapping[str, object] | None
) -> Place:
    """Where a feed goes on at the next poll, after this last page: behind it if it says so, else with it once more."""
    if resource.paging is Paging.CURSOR:
        token = page.value(resource.next)
        return place if token in (None, "", False) else {"cursor": _token(token)}
    if resource.paging is Paging.KEYSET:
        return _after(resource, last) if len(page) else place
    return _linked(resource, page, answer) or place


class Walked:
    """What a walk through pages has seen, as far as its sense is judged by it."""

    def __init__(self, *, most_pages: int) -> None:
        self._most_pages = most_pages
        self._places: set[str] = set()
        self._previous: Sequence[str] = ()
        self._same = 0
        self._empty = 0

    def enter(self, place: Place) -> None:
        """
        The walk comes to this place.

        Raises:
            SourceUnavailable: it was here before, or it goes on for too long.
        """
        key = repr(sorted(place.items()))
        if key in self._places:
            raise SourceUnavailable("the API leads in a circle: a place that was read is named as the next one")
        self._places.add(key)
        if len(self._places) > self._most_pages:
            raise SourceMisconfigured(
                f"more than {self._most_pages} pages",
                hint="ask for larger pages or shorter windows, or raise max_pages",
            )

    def fresh(self, names: Sequence[str]) -> list[str]:
        """Those that the page before had not: a row that comes at a list's head pushes its neighbours along."""
        return [name for name in names if name not in self._previous]

    def saw(self, names: Sequence[str]) -> None:
        """
        A page had these records, of the window or not.

        Raises:
            SourceUnavailable: they are those of the pages before, or there was none for many pages.
        """
        self._same = self._same + 1 if names and names == self._previous else 0
        if self._same > _MOST_SAME:
            raise SourceUnavailable(
                f"{self._same + 1} pages in a row are the same",
                hint="if it stays so, the API does not heed the parameter that names the page",
            )
        self._previous = names
        self._empty = 0 if names else self._empty + 1
        if self._empty > _MOST_EMPTY:
            raise SourceUnavailable(f"{self._empty} pages in a row have no record, and the API says that there is more")


def _linked(resource: Resource, page: Page, answer: Answer) -> Place | None:
    if resource.next:
        found = page.value(resource.next)
        if found in (None, "", False):
            return None
        target = answer.url.join(URL(_token(found)))
    elif "next" in answer.links:
        target = answer.links["next"]
    else:
        return None
    try:
        target = address.parse(str(target))
    except ValueError as exc:
        raise SourceMisconfigured(f"the next page's address {exc}") from None
    if not address.same_origin(answer.url, target):
        raise SourceMisconfigured(
            f"the next page is said to be at {address.shown(target)}, which is not the API's origin",
            hint="nothing was sent there; if it is right, use that address as api_base_url",
        )
    return {"url": str(target)}


def _after(resource: Resource, last: Mapping[str, object] | None) -> Place:
    if last is None:
        raise SourceUnavailable("the last record of a page cannot be read, so that the next page has no beginning")
    place: dict[str, str] = {}
    for name, path in (("id", resource.id), ("time", resource.time)):
        if path:
            value = JsonPath.parse(path).of(last)
            if value is None:
                raise SourceMisconfigured(f"a record has nothing at {path}, where its {name} should be")
            place[name] = _token(value)
    return place


def _token(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if len(text) > _MOST_TOKEN:
        raise SourceUnavailable("the API names the next page by more than can be kept")
    return text
