"""What is read of an API: one resource, its requests, its pages, its time, and how its records are understood."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from connectors.http.page import WHOLE
from connectors.http.request import PLACES, places_of, unknown_places
from connectors.json_path import JsonPath
from connectors.secret_text import MayHoldSecrets, problems_of
from schemas.payment import Instant

_DAY_S = 86_400.0


class Paging(StrEnum):
    """How an API tells its pages apart."""

    NONE = "none"  # one answer holds all
    PAGE = "page"  # pages are counted
    OFFSET = "offset"  # records are counted
    CURSOR = "cursor"  # each answer holds what to ask for next
    LINK = "link"  # each answer holds the next address: RFC 8288, or a member
    KEYSET = "keyset"  # the next page begins after the last record


class WindowKind(StrEnum):
    """How a resource's time is divided into what is asked for at once."""

    ROLLING = "rolling"  # from where the last window ended until almost now
    DAY = "day"  # a day of the connector's zone, once it is over
    FEED = "feed"  # no time: the place in the pages goes on from poll to poll
    WHOLE = "whole"  # no time and no place: the whole list each time


class TimeFormat(StrEnum):
    """How the API wants {from} and {to} spelled."""

    UNIX_S = "unix_s"
    UNIX_MS = "unix_ms"
    RFC3339 = "rfc3339"
    DATE = "date"  # {to} is the last day then


def _is_path(value: str) -> str:
    if value:
        JsonPath.parse(value)
    return value


Path = Annotated[str, AfterValidator(_is_path)]
"""A configuration field: where in an answer or a record a value stands; empty: nowhere."""

_NEEDS = {Paging.PAGE: {"page"}, Paging.OFFSET: {"offset"}, Paging.CURSOR: {"cursor"}}


class Resource(BaseModel):
    """One list of an API. Texts of `path`, `query` and `body` may name places such as {from} and {offset}."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Names it; part of every event's id, so keep it.")
    method: Literal["GET", "POST"] = Field("GET", description="How it is asked for.")
    path: str = Field("", max_length=2_000, description="Below `api_base_url`.")
    query: Annotated[dict[str, str], MayHoldSecrets()] = Field(
        default_factory=dict, description="Parameters of the address; secrets in them by reference."
    )
    # any JSON: what the API wants
    body: Annotated[dict[str, Any] | None, MayHoldSecrets()] = Field(
        None, description="JSON that goes along with POST; secrets in it by reference."
    )
    records: str = Field(WHOLE, description="Where the array of records stands in the answer; `$`: the answer is it.")
    failure: Path = Field("", description="Where an answer of status 200 says that it failed, such as `$.errors`.")

    paging: Paging = Field(Paging.NONE, description="How pages are told apart.")
    page_size: int = Field(100, ge=1, le=100_000, description="What {size} stands for; no more than the API allows.")
    first_page: int = Field(1, ge=0, le=1, description="What {page} counts from.")
    next: Path = Field("", description="Where the answer has the next {cursor}, or the next address.")
    more: Path = Field("", description="Where the answer says whether there is more; nothing there: ask and see.")
    last_page: Literal["empty", "short"] = Field(
        "empty", description="What shows the last page: an `empty` one, or a `short` one, of fewer records than {size}."
    )
    id: Path = Field("", description="Where a record has what {after_id} stands for.")
    time: Path = Field("", description="Where a record has the time by which {from} and {to} choose.")

    window: WindowKind = Field(WindowKind.ROLLING, description="How its time is divided.")
    time_format: TimeFormat = Field(TimeFormat.RFC3339, description="How {from} and {to} are spelled.")
    start: Instant | None = Field(None, description="Where a first reading begins; unset: `lookback_s` ago.")
    lookback_s: float = Field(_DAY_S, ge=0, le=3_700 * _DAY_S, description="How far a first reading looks back.")
    window_s: float = Field(
        _DAY_S,
        ge=1,
        le=366 * _DAY_S,
        description="Longest time that is asked for at once; without {to}, by `keyset` on the time only.",
    )
    settle_s: float = Field(
        60.0, ge=0, le=7 * _DAY_S, description="A window ends so long ago: what is younger may still be moving."
    )
    overlap_s: float = Field(
        300.0, ge=0, le=100 * _DAY_S, description="How late a record may turn up, or change, and still be found."
    )
    revisit_s: float = Field(
        0.0, ge=0, le=400 * _DAY_S, description="How far back to look for changes once in a while; 0: never."
    )
    revisit_every_s: float = Field(3_600.0, ge=1, le=366 * _DAY_S, description="How often that is.")
    reread_days: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        (), description="Days after which a day is asked for once more, for what came late."
    )
    volatile: tuple[str, ...] = Field(
        (), description="Members of a record that differ each time it is read, and mean nothing."
    )
    # validated with the connector's own options around it
    mapping: dict[str, Any] = Field(
        default_factory=dict, description="Options of records (`columns`, `status_map`, …) that differ here."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Resource:
        named = places_of([self.path, self.query, self.body])
        unknown = unknown_places(self.path).union(*map(unknown_places, self.query.values()))
        if unknown:
            known = ", ".join(sorted(PLACES))
            raise ValueError(f"{', '.join(sorted(unknown))}: no such place; there are {known}")
        if self.body is not None and self.method == "GET":
            raise ValueError("a body goes along with POST only")
        if self.records != WHOLE and not all(isinstance(step, str) for step in JsonPath.parse(self.records).steps):
            raise ValueError("the path to the records leads through names, not through places in arrays")
        if absent := _NEEDS.get(self.paging, set()) - named:
            raise ValueError(f"paging {self.paging} needs {{{absent.pop()}}} in path, query or body")
        if "${" in self.path:
            raise ValueError("there is no secret in a path, which shows in logs; give it in query or request_headers")
        if wrong := [*problems_of(self.query), *problems_of(self.body or {})]:
            raise ValueError("; ".join(wrong))
        if self.reread_days and self.window is not WindowKind.DAY:
            raise ValueError("reread_days is for a window of a day; revisit_s looks back in a rolling one")
        if self.more and self.paging is Paging.NONE:
            raise ValueError("more says nothing with paging none; name the way of paging, or leave it out")
        self._check_paging(named)
        self._check_window(named)
        return self

    def _check_paging(self, named: frozenset[str]) -> None:
        if self.paging is Paging.CURSOR and not self.next:
            raise ValueError("paging cursor needs `next`: where the answer has it")
        if self.paging is Paging.KEYSET:
            if not named & {"after_id", "after_time"}:
                raise ValueError("paging keyset needs {after_id} or {after_time}")
            if ("after_id" in named and not self.id) or ("after_time" in named and not self.time):
                raise ValueError("{after_id} needs `id`, {after_time} needs `time`: where a record has it")

    def _check_window(self, named: frozenset[str]) -> None:
        if self.window is WindowKind.ROLLING and "from" not in named and "after_time" not in named:
            raise ValueError("a rolling window needs {from}; a list without time is a `feed`, or read `whole`")
        if self.window is WindowKind.ROLLING and "to" not in named and not self.time:
            raise ValueError("a window without {to} needs `time`: where a record has the time that {from} chooses by")
        if self.window is WindowKind.DAY and not named & {"date", "from"}:
            raise ValueError("a window of a day needs {date}, or {from} and {to}")
        if self.window is WindowKind.FEED and self.paging not in (Paging.CURSOR, Paging.LINK, Paging.KEYSET):
            raise ValueError("a feed needs a place that stays good: paging cursor, link or keyset")

    @property
    def names_merchant(self) -> bool:
        """Whether it is read once for each merchant."""
        return "merchant_code" in places_of([self.path, self.query, self.body])

    @property
    def names_end(self) -> bool:
        """Whether its requests say where a window ends. If not, the API gives all until now: we choose by `time`."""
        return bool(places_of([self.path, self.query, self.body]) & {"to", "date"})

    @property
    def ends_by_time(self) -> bool:
        """Whether a record past a window's end shows that the window is through: the list is in the order of time."""
        named = places_of([self.path, self.query, self.body])
        return self.paging is Paging.KEYSET and "after_time" in named and not self.names_end

    @property
    def drifts(self) -> bool:
        """Whether its pages shift when records come or go, so that one may fall between two of them."""
        return self.paging in (Paging.PAGE, Paging.OFFSET) and self.window is not WindowKind.WHOLE

    def spell(self, at: datetime) -> str:
        """An instant as the API wants it. Whole seconds: what is cut off is read twice rather than never."""
        if self.time_format is TimeFormat.UNIX_S:
            return str(int(at.timestamp()))
        if self.time_format is TimeFormat.UNIX_MS:
            return str(int(at.timestamp()) * 1_000)
        if self.time_format is TimeFormat.DATE:
            return at.date().isoformat()
        return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
