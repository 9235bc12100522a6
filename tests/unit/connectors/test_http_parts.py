"""What the HTTP source is made of, as far as it needs no socket: pages, requests, windows, what was seen, secrets."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

from connectors.http import address, page, request, template
from connectors.http import window as windows
from connectors.http.body import Inflated
from connectors.http.pace import Pace
from connectors.http.redaction import excerpt, redacted
from connectors.http.resource import Resource, TimeFormat
from connectors.http.seen import DIGEST_CHARS, MOST_IN_CURSOR, Seen
from connectors.http.window import Window
from connectors.http_api import HttpApiConfig
from connectors.secret import GivenSecrets
from connectors.testing import ManualClock, eventually
from schemas.errors import SourceMisconfigured, SourceUnavailable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROLLING = {"name": "r", "query": {"from": "{from}", "to": "{to}"}}

# Pages.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    records=st.lists(json_values, max_size=6),
    before=st.dictionaries(st.text().filter(lambda name: name != "items"), json_values, max_size=3),
    indent=st.sampled_from([None, 1]),
)
def test_a_pages_records_are_its_own_texts_and_the_rest_is_beside_them(
    records: list[Any], before: dict[str, Any], indent: int | None
) -> None:
    body = json.dumps({**before, "items": records, "zz-after": 7}, indent=indent, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )

    found = page.parse(body, "$.items", most=100)

    assert [json.loads(text) for text in found.records()] == records
    assert found.value("$.zz-after") == 7
    assert all(
        found.value(f'$["{name}"]') == value for name, value in before.items() if name.isalnum() and name.isascii()
    )


@given(st.binary(max_size=60))
@example(b'{"items":[{]}')
@example(b'{"items":[{"a":"]}')
@example(b'{"items":[1,]}')
@example(b'{"items":[1}')
@example(b'{"items"')
@example(b'{"items":[')
@example(b"[[[[")
def test_whatever_comes_it_is_a_page_or_an_error_of_ours(body: bytes) -> None:
    for path in ("$", "$.items"):
        try:
            found = page.parse(body, path, most=10)
        except (SourceUnavailable, SourceMisconfigured):
            continue
        assert len(list(found.records())) == len(found)


@pytest.mark.parametrize(
    ("body", "path", "texts"),
    [
        ("[]", "$", []),
        ('[{"a":1}, 2]', "$", ['{"a":1}', "2"]),
        ('{"a":{"b":[1 , "x"]}}', "$.a.b", ["1", '"x"']),
        ('{"a":{"b":null}}', "$.a.b", []),
        ('[{"a":}, {"b":"}"}]', "$", ['{"a":}', '{"b":"}"}']),
    ],
)
def test_records_are_found_under_their_path(body: str, path: str, texts: list[str]) -> None:
    assert list(page.parse(body.encode(), path, most=10).records()) == texts


@pytest.mark.parametrize(
    ("content_type", "known"),
    [
        ("application/json", True),
        ("application/problem+json", True),
        ("APPLICATION/JSON", True),
        ("text/json", True),
        ("text/html", False),
        ("application/octet-stream", False),
        ("application/jsonx", False),
    ],
)
def test_an_answer_says_of_itself_what_it_is(content_type: str, known: bool) -> None:
    assert page.is_json(content_type) is known


# Bodies.

PACKED = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


@given(
    data=st.binary(max_size=300),
    encoding=st.sampled_from(sorted(PACKED)),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_a_body_is_the_same_however_its_pieces_fall(data: bytes, encoding: str, sizes: list[int]) -> None:
    packed = PACKED[encoding](data)
    inflated = Inflated(encoding, limit_bytes=1_000)

    at = 0
    for size in [*sizes, len(packed)]:
        if packed[at : at + size]:
            inflated.feed(packed[at : at + size])
        at += size

    assert inflated.close() == data


@pytest.mark.parametrize("size", [999, 1_000])
@pytest.mark.parametrize("encoding", sorted(PACKED))
def test_a_body_may_be_as_large_as_the_limit(encoding: str, size: int) -> None:
    inflated = Inflated(encoding, limit_bytes=1_000)

    inflated.feed(PACKED[encoding](b"x" * size))

    assert len(inflated.close()) == size


@pytest.mark.parametrize("encoding", sorted(PACKED))
def test_a_body_may_not_be_larger_whatever_it_is_packed_in(encoding: str) -> None:
    inflated = Inflated(encoding, limit_bytes=1_000)

    with pytest.raises(SourceMisconfigured, match="more than"):
        inflated.feed(PACKED[encoding](b"x" * 1_001))


# Requests.


def test_a_place_without_a_value_leaves_its_parameter_out() -> None:
    values: request.Values = {"from": "a b", "cursor": None, "size": 5, "offset": 10}

    made = request.call(
        URL("https://x/v1"),
        method="POST",
        path="/l/{from}",
        query={"c": "{cursor}", "f": "{from}", "n": "{size}"},
        body={"p": {"limit": "{size}", "cursor": "{cursor}"}, "q": "query { id }", "r": ["{offset}", "at {offset}"]},
        values=values,
        secrets=GivenSecrets(),
    )

    assert str(made.url) == "https://x/v1/l/a%20b?f=a+b&n=5"
    assert made.json == {"p": {"limit": 5, "cursor": None}, "q": "query { id }", "r": [10, "at 10"]}


def test_what_an_api_says_names_no_secret_and_no_secret_names_a_place() -> None:
    secrets = GivenSecrets({"${env:A}": "{from}-canary", "${env:B}": "of another connector"})

    made = request.call(
        URL("https://x/v1"),
        method="POST",
        path="/{cursor}",
        query={"c": "{cursor}", "k": "${env:A}.{size}"},
        body={"c": "{cursor}", "k": ["at {size}: ${env:A}"]},
        values={"from": "then", "cursor": "${env:B}", "size": 5},
        secrets=secrets,
    )

    assert made.url.query == {"c": "${env:B}"}
    assert made.params == {"k": "{from}-canary.5"}
    assert made.json == {"c": "${env:B}", "k": ["at 5: {from}-canary"]}
    assert made.secrets == {"{from}-canary"}


def test_a_path_cannot_be_climbed_out_of() -> None:
    made = request.call(
        URL("https://x/v1"),
        method="GET",
        path="/{merchant_code}/l",
        query={},
        body=None,
        values={"merchant_code": "../.."},
        secrets=GivenSecrets(),
    )

    assert made.url.host == "x"
    assert made.url.raw_path == "/v1/..%2F../l"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.example.com/v1",
        "ftp://x/",
        "file:///etc/passwd",
        "https://user@x/",
        "https://user:password@x/",
        "https:///v1",
        "https://x:99999/",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_address_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        address.parse(text)

    assert "password" not in str(caught.value).replace("user and no password", "")


# Windows.


def resource(**options: Any) -> Resource:
    return Resource.model_validate({**ROLLING, **options})


def test_a_first_window_looks_back_and_ends_before_what_still_moves() -> None:
    found = windows.rolling(resource(lookback_s=3_600, settle_s=60), NOW)

    assert found == Window(NOW - timedelta(hours=1), NOW - timedelta(seconds=60))


def test_windows_follow_each_other_without_a_gap_until_they_have_caught_up() -> None:
    chosen, until, ends = resource(start="2025-12-30T00:00:00Z", window_s=86_400), None, []

    while (found := windows.rolling(chosen, NOW, until=until, read_at=NOW)) is not None:
        assert until is None or found.begin <= until
        until = found.end
        ends.append(until)

    assert ends[:3] == [
        datetime(2025, 12, 31, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=UTC),
    ]
    assert ends[-1] == NOW - timedelta(seconds=60)


def test_an_overlap_counts_from_the_last_reading_so_that_catching_up_costs_nothing() -> None:
    until = NOW - timedelta(days=30)

    found = windows.rolling(resource(), NOW, until=until, read_at=NOW, overlap_s=300)

    assert found
    assert found.begin == until


def test_a_clock_that_goes_back_costs_another_look_at_the_overlap_and_no_more() -> None:
    until, chosen = NOW + timedelta(hours=1), resource()

    again = windows.rolling(chosen, NOW, until=until, read_at=until, overlap_s=300, again=True)
    after_that = windows.rolling(chosen, NOW, until=until, read_at=NOW, overlap_s=300)

    assert again == Window(until - timedelta(seconds=300), until)
    assert after_that is None


@pytest.mark.parametrize(
    ("zone", "of", "hours"),
    [
        ("Asia/Kolkata", date(2025, 10, 2), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # its midnight does not exist
    ],
)
def test_a_day_is_as_long_as_clocks_show_it(zone: str, of: date, hours: int) -> None:
    found, next_one = windows.day(of, ZoneInfo(zone)), windows.day(of + timedelta(days=1), ZoneInfo(zone))

    assert (found.end - found.begin).total_seconds() == hours * 3_600
    assert found.end == next_one.begin


@pytest.mark.parametrize(
    ("now", "first", "days"),
    [
        ("2025-10-02T20:30:00Z", None, ["2025-10-02"]),
        ("2025-10-02T20:29:59Z", None, ["2025-10-01"]),
        ("2025-10-02T20:30:00Z", "2025-09-30", ["2025-09-30", "2025-10-01", "2025-10-02"]),
        ("2025-10-02T20:30:00Z", "2020-01-01", [f"2025-09-{day}" for day in (29, 30)] + ["2025-10-01", "2025-10-02"]),
        ("2025-10-02T20:30:00Z", "2025-10-02", ["2025-10-02"]),
    ],
)
def test_days_are_due_by_the_zones_clock(now: str, first: str | None, days: list[str]) -> None:
    found = windows.due_days(
        datetime.fromisoformat(now),
        windows.Calendar(ZoneInfo("Asia/Kolkata"), time(2), settle_s=60),
        back=1,
        first=date.fromisoformat(first) if first else None,
        most=4,
    )

    assert [each.isoformat() for each in found] == days


def test_times_are_spelled_as_the_api_wants_them() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=ZoneInfo("Asia/Kolkata"))

    assert [resource(time_format=each).spell(at) for each in TimeFormat] == [
        "1767303245",
        "1767303245000",
        "2026-01-01T21:34:05Z",
        "2026-01-02",
    ]


# What was seen.


def digests(*numbers: int) -> list[str]:
    return [str(number).rjust(DIGEST_CHARS, "x") for number in numbers]


def test_what_was_read_after_a_cursor_is_not_taken_for_durable() -> None:
    seen = Seen()
    for digest in digests(1, 2):
        seen.add(digest, NOW)
    durable = seen.kept()
    seen.add(*digests(3), NOW)
    seen.kept()

    seen.restore(durable)

    assert [digest in seen for digest in digests(1, 2, 3)] == [True, True, False]


def test_a_cursor_of_a_reading_that_was_given_up_covers_nothing_of_the_next_one() -> None:
    seen = Seen()
    before = seen.kept()
    seen.add(*digests(1), NOW)
    given_up = seen.kept()
    seen.restore(before)
    seen.add(*digests(2), NOW)
    seen.kept()

    seen.restore(given_up)

    assert [digest in seen for digest in digests(1, 2)] == [True, False]


def test_another_worker_knows_from_the_cursor_what_was_seen() -> None:
    first, second = Seen(), Seen()
    for digest in digests(1, 2):
        first.add(digest, NOW)

    second.add(*digests(3), NOW)
    second.restore(json.loads(json.dumps(first.kept())))

    assert [digest in second for digest in digests(1, 2, 3)] == [True, True, False]


def test_a_cursor_holds_the_newest_and_nothing_that_is_of_no_use() -> None:
    seen = Seen()
    for number in range(MOST_IN_CURSOR + 5):
        seen.add(*digests(number), NOW - timedelta(days=1) if number % 2 else NOW)

    assert len(seen.kept()["seen"]) == MOST_IN_CURSOR * DIGEST_CHARS
    assert len(seen.kept(NOW)["seen"]) == (MOST_IN_CURSOR // 2 + 3) * DIGEST_CHARS
    assert seen.kept(NOW)["seen"].endswith(digests(MOST_IN_CURSOR + 4)[0])


@given(st.lists(st.sampled_from(["add", "keep", "back", "forget"]), max_size=40), st.randoms())
def test_nothing_is_ever_taken_for_seen_that_the_cursor_does_not_cover(steps: list[str], rng: Any) -> None:
    """Whatever is forgotten is read again; what is remembered wrongly would be lost."""
    seen, number, covered = Seen(), 0, set[str]()
    kept: list[tuple[dict[str, str], set[str]]] = [(seen.kept(), set())]
    for step in steps:
        if step == "add":
            number += 1
            seen.add(*digests(number), NOW + timedelta(seconds=rng.randrange(9)))
            covered.add(*digests(number))
        elif step == "keep":
            kept.append((seen.kept(NOW + timedelta(seconds=rng.randrange(9))), set(covered)))
        elif step == "back":
            cursor, covered = rng.choice(kept)
            covered = set(covered)
            seen.restore(cursor)
        else:
            seen.forget_before(NOW + timedelta(seconds=rng.randrange(9)))
        assert {each for each in digests(*range(1, number + 1)) if each in seen} <= covered


# What nobody may read.


@given(
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=3, max_size=30),
    st.text(max_size=30),
)
def test_a_secret_is_masked_in_every_spelling(secret: str, around: str) -> None:
    spellings = [secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode(), json.dumps(secret)]

    for spelling in spellings:
        told = redacted(f"{around}<{spelling}>", {secret})
        assert f"<{spelling}>" not in told or spelling == "***"


def test_an_excerpt_is_one_printable_line_and_cuts_no_secret_in_two() -> None:
    data = b"a\n\x00\xff b " + b"." * 190 + b"canary-secret"

    told = excerpt(data, {"canary-secret"}, limit=205)

    assert told.isprintable()
    assert "canary" not in told


# Pace.


async def test_turns_come_evenly_and_in_order() -> None:
    import asyncio

    clock = ManualClock()
    pace, turns = Pace(2.0, clock), list[tuple[int, float]]()

    async def take(number: int) -> None:
        await pace.turn()
        turns.append((number, clock.monotonic()))

    waiting = [asyncio.create_task(take(number)) for number in range(4)]
    await eventually(lambda: len(turns) == 4, clock=clock, tick_s=0.125)
    await asyncio.gather(*waiting)

    assert [number for number, _ in turns] == [0, 1, 2, 3]
    assert [round(at, 1) for _, at in turns] == [0.0, 0.5, 1.0, 1.5]


# Configurations.

BEARER = {"authentication_type": "bearer", "token": "${env:TOKEN}"}
OAUTH = {"authentication_type": "oauth2", "client_id": "${env:ID}", "client_secret": "${env:SECRET}"}


def posting(body: dict[str, Any]) -> dict[str, Any]:
    return {"name": "r", "method": "POST", "body": {"from": "{from}", "to": "{to}", **body}}


def configured(**options: Any) -> HttpApiConfig:
    given_: dict[str, Any] = {"api_base_url": "https://api.example.com", "resources": [ROLLING], **options}
    return HttpApiConfig.model_validate(given_)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_base_url": "ftp://x"}, "begins with https"),
        ({"api_base_url": "https://u:canary@x"}, "no user and no password"),
        ({"resources": []}, "at least 1"),
        ({"resources": [ROLLING, ROLLING]}, "one name"),
        ({"resources": [{"name": "r"}]}, r"needs \{from\}"),
        ({"resources": [{"name": "r", "query": {"from": "{from}"}}]}, r"without \{to\} needs `time`"),
        ({"resources": [{**ROLLING, "path": "/{nonsense}"}]}, "nonsense: no such place"),
        ({"resources": [{**ROLLING, "paging": "offset"}]}, r"needs \{offset\}"),
        ({"resources": [{**ROLLING, "paging": "page"}]}, r"needs \{page\}"),
        ({"resources": [{**ROLLING, "paging": "cursor"}]}, r"needs \{cursor\}"),
        ({"resources": [{"name": "r", "paging": "cursor", "query": {"c": "{cursor}"}}]}, "needs `next`"),
        ({"resources": [{**ROLLING, "paging": "keyset"}]}, r"needs \{after_id\}"),
        ({"resources": [{**ROLLING, "paging": "keyset", "path": "/{after_id}"}]}, "needs `id`"),
        ({"resources": [{"name": "r", "window": "feed"}]}, "a place that stays good"),
        ({"resources": [{"name": "r", "window": "day"}]}, r"needs \{date\}"),
        ({"resources": [{**ROLLING, "body": {"a": 1}}]}, "POST only"),
        ({"resources": [{**ROLLING, "records": "$.a[0]"}]}, "through names"),
        ({"resources": [{**ROLLING, "records": "items"}]}, "no path"),
        ({"resources": [{**ROLLING, "mapping": {"status_map": {"x": "lost"}}}]}, r"mapping of r: status_map"),
        ({"resources": [{**ROLLING, "mapping": {"kolumns": {}}}]}, r"mapping of r: kolumns"),
        ({"resources": [{**ROLLING, "path": "/{merchant_code}"}]}, "give merchant_codes"),
        ({"resources": ["payments"]}, "resources"),
        ({"template": "nobody"}, "no template 'nobody'; there are razorpay, sabpaisa"),
        ({"template": "razorpay", "resources": ["payouts"]}, "no resource 'payouts'; it has payments, refunds"),
        ({"authentication_type": "basic"}, "needs username"),
        ({"authentication_type": "oauth2"}, "needs token_url, client_id, client_secret"),
        ({"authentication_type": "magic"}, "authentication_type"),
        ({"password": "canary"}, "by reference"),
        ({"request_headers": {"A\nB": "x"}}, "request_headers"),
        ({"request_headers": {"A": "a\r\nb"}}, "one line"),
        ({"request_headers": {"A": "${vault:x}"}}, "no reference"),
        ({"request_headers": {"A": "Bearer canary"}}, "by reference"),
        ({"request_headers": {"authorization": "canary"}}, "authorization holds a secret"),
        ({"request_headers": {"Cookie": "sid=canary"}}, "by reference"),
        ({"request_headers": {"X-Api-Key": "canary"}}, "by reference"),
        ({"request_headers": {"X-Session-Token": "canary"}}, "by reference"),
        ({"request_headers": {"x-client-SECRET": "canary"}}, "by reference"),
        ({"request_headers": {"X-Password": "canary"}}, "by reference"),
        ({"request_headers": {"X-Signature": "canary"}}, "by reference"),
        ({**BEARER, "request_headers": {"AUTHORIZATION": "${env:A}"}}, "AUTHORIZATION is set by authentication_type"),
        ({"resources": [{**ROLLING, "query": {**ROLLING["query"], "apiKey": "canary"}}]}, "apiKey holds a secret"),
        ({"resources": [{**ROLLING, "query": {**ROLLING["query"], "t": "${env:}"}}]}, "no reference"),
        ({"resources": [posting({"a": [{"auth_token": {"v": "canary"}}]})]}, r"a\.0\.auth_token\.v holds a secret"),
        ({"resources": [posting({"password": 123456})]}, "password holds a secret"),
        ({"resources": [{**ROLLING, "path": "/${env:A}/x"}]}, "no secret in a path"),
        ({**OAUTH, "token_url": "https://x/token?client_secret=canary"}, "client_secret holds a secret"),
        ({"api_base_url": "https://x/${env:A}"}, "no secret in an address"),
        ({"token": "${env:A}"}, "token is of authentication_type bearer"),
        ({"username": "${env:A}"}, "username is of authentication_type basic"),
        ({**BEARER, "password": "${env:A}"}, "password is of authentication_type basic"),
        ({"api_key_name": "X-Mine"}, "api_key_name is of authentication_type api_key"),
        ({"oauth_scope": "read"}, "oauth_scope is of authentication_type oauth2"),
        ({"merchant_codes": ["A"]}, r"no resource names \{merchant_code\}"),
        ({"resources": [{**ROLLING, "reread_days": [1]}]}, "reread_days is for a window of a day"),
        ({"resources": [{**ROLLING, "more": "$.m"}]}, "more says nothing with paging none"),
        ({"resources": [{**ROLLING, "mapping": {"event_types": ["x"]}}]}, "event_types is an option of the connector"),
        ({"resources": [{**ROLLING, "mapping": {"records_per_s": 1}}]}, "records_per_s is an option of the connector"),
        ({"resources": [{**ROLLING, "mapping": {"max_retries": 0}}]}, "max_retries is an option of the connector"),
        ({"auto_retry": "no"}, "auto_retry is true or false"),
        ({"auto_retry": "banana"}, "auto_retry is true or false"),
        ({"auto_retry": 0}, "auto_retry is true or false"),
        ({"auto_retry": False, "max_retries": 9}, "max_retries says another number"),
        ({"retry_count": 7, "max_retries": 2}, "max_retries says another number"),
        ({"api_mode": "proxy"}, "needs proxy_base_url"),
        ({"api_mode_variable": "PATH"}, "api_mode_variable"),
        ({"tls_certificate": "${file:a}"}, "go together"),
        ({"request_s": 60.0}, "less than deadline_s"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        configured(**options)

    assert "canary" not in str(caught.value.errors(include_input=False, include_context=False))


@pytest.mark.parametrize(
    "options",
    [
        {"request_headers": {"Authorization": "Bearer ${env:A}", "x-api-version": "2023-08-01"}},
        {"request_headers": {"X-Token": "${env:A}:${file:b}", "X-Mode": "key"}},
        {"resources": [{**ROLLING, "query": {**ROLLING["query"], "page_token": "{size}", "include_keys": "yes"}}]},
        {"resources": [posting({"client": {"secret": "${env:A}"}, "with_tokens": True, "key": None})]},
        {"auto_retry": "False"},
        {"auto_retry": True, "retry_count": 2},
        {"auto_retry": False, "retry_count": 3},
        {"retry_count": 2, "max_retries": 2},
    ],
)
def test_what_can_work_is_accepted(options: dict[str, Any]) -> None:
    configured(**options)


@pytest.mark.parametrize(("said", "retries"), [("False", 0), (False, 0), ("TRUE", 5), (True, 5)])
def test_seed_003s_auto_retry_is_understood(said: Any, retries: int) -> None:
    assert configured(auto_retry=said).max_retries == retries


def test_a_resource_may_understand_its_records_in_its_own_way() -> None:
    config = configured(
        columns={"reference": "id"},
        timezone="Asia/Kolkata",
        resources=[{**ROLLING, "mapping": {"amount_unit": "major"}}],
    )

    mapping = config.mapping_of(config.resources[0])

    assert (mapping.amount_unit, mapping.columns, mapping.timezone) == ("major", {"reference": "id"}, "Asia/Kolkata")


def test_a_template_gives_way_to_what_is_said() -> None:
    config = HttpApiConfig.model_validate(
        {
            "template": "razorpay",
            "username": "${env:A}",
            "poll_s": 5,
            "resources": [{"name": "payments", "page_size": 7}, "refunds", {**ROLLING, "name": "own"}],
        }
    )

    assert config.poll_s == 5
    assert config.api_base_url == "https://api.razorpay.com/v1"
    assert [(each.name, each.page_size) for each in config.resources] == [
        ("payments", 7),
        ("refunds", 100),
        ("own", 100),
    ]


@pytest.mark.parametrize("name", template.names())
def test_a_template_needs_nothing_but_its_credentials(name: str) -> None:
    config = HttpApiConfig.model_validate(
        {"template": name, **({"username": "${env:A}"} if name == "razorpay" else {})}
    )

    assert config.resources
    assert config.api_base_url.startswith("https://")
