"""Servers that cut, stall, lie and flood. Whatever they do, the page is not counted, and the error says what it was."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib

import pytest

from connectors.testing import DEADLINE_S
from schemas.errors import SourceMisconfigured, SourceThrottled, SourceUnauthorised, SourceUnavailable, TillError
from tests.integration.http_kit import NOW, answered, batches_of, raw_server, references, source_of

ROW = '{"id":"p-1","amount":100,"currency":"EUR","status":"captured","created_at":1767322800}'
PAGE = f'{{"data":[{ROW}]}}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
MIB = 1_048_576


def zipped(data: bytes) -> bytes:
    return answered(gzip.compress(data), "Content-Encoding: gzip")


BROKEN: dict[str, tuple[bytes, type[TillError], str]] = {
    "closes without a word": (b"", SourceUnavailable, "disconnected"),
    "cut in the status line": (b"HTTP/1.1 20", SourceUnavailable, ""),
    "no HTTP at all": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", SourceUnavailable, ""),
    "cut in the headers": (HEAD, SourceUnavailable, ""),
    "cut in the body": (HEAD + b"Content-Length: 999\r\n\r\n" + PAGE.encode(), SourceUnavailable, "Payload"),
    "a length that is none": (HEAD + b"Content-Length: -5\r\n\r\n" + PAGE.encode(), SourceUnavailable, ""),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + PAGE.encode(), SourceUnavailable, ""),
    "a length too short": (HEAD + b"Content-Length: 20\r\n\r\n" + PAGE.encode(), SourceUnavailable, ""),
    "cut in a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + PAGE.encode()[:20], SourceUnavailable, ""),
    "cut between chunks": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + PAGE.encode()[:8] + b"\r\n",
        SourceUnavailable,
        "",
    ),
    "a chunk of no size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", SourceUnavailable, ""),
    "gzip that is none": (answered(PAGE, "Content-Encoding: gzip"), SourceUnavailable, "gzip"),
    "gzip that is cut": (
        answered(gzip.compress(PAGE.encode() * 50)[:-9], "Content-Encoding: gzip"),
        SourceUnavailable,
        "ends in the middle",
    ),
    "an encoding that was not asked for": (answered(PAGE, "Content-Encoding: br"), SourceUnavailable, "'br'"),
    "a bomb": (zipped(b" " * (40 * MIB)), SourceMisconfigured, "more than 1 MiB"),
    "a thousand small gzips": (
        answered(gzip.compress(b" ") * 1_000, "Content-Encoding: gzip"),
        SourceUnavailable,
        "gzip",
    ),
    "too large": (answered(b" " * (2 * MIB)), SourceMisconfigured, "more than 1 MiB"),
    "a header without an end": (HEAD + b"X: " + b"x" * 100_000, SourceUnavailable, ""),
    "headers without an end": (HEAD + b"X: y\r\n" * 20_000 + b"\r\n", SourceUnavailable, ""),
    "a page for people": (
        answered("<html><title>Log in</title>", content_type="text/html; charset=utf-8"),
        SourceUnavailable,
        "text/html, not JSON: <html><title>Log in",
    ),
    "no JSON": (answered("{oops"), SourceUnavailable, "no JSON"),
    "JSON that is cut": (answered(PAGE[:-2]), SourceUnavailable, "no JSON"),
    "more after the end": (answered(PAGE + PAGE), SourceUnavailable, "more after its end"),
    "an abyss": (answered("[" * 200_000), SourceUnavailable, "nested too deeply"),
    "one name twice": (answered('{"data":[],"data":[]}'), SourceUnavailable, "comes twice"),
    "no array": (answered('{"items":[]}'), SourceMisconfigured, r"no array of records at \$\.data"),
    "an object for an array": (answered('{"data":{"1":{}}}'), SourceMisconfigured, "no array"),
    "400": (answered('{"error":"bad from"}', status="400 Bad Request"), SourceMisconfigured, "400: Bad Request: .*bad"),
    "401": (
        answered("", status="401 Nope"),
        SourceUnauthorised,
        "^API responded with status 401: Unauthorized$",
    ),
    "403": (answered("", status="403 Forbidden"), SourceUnauthorised, "^API responded with status 403: Forbidden$"),
    "404": (answered("", status="404 Not Found"), SourceMisconfigured, "^API responded with status 404: Not Found$"),
    "408": (answered("", status="408 Request Timeout"), SourceUnavailable, "408"),
    "410": (answered("", status="410 Gone"), SourceMisconfigured, "410"),
    "500": (answered("oh\nno\x00", status="500 Oops"), SourceUnavailable, "500: Internal Server Error: oh no$"),
    "503": (answered("", status="503 Service Unavailable"), SourceUnavailable, "503"),
    "a status of its own": (answered("", status="599 Odd"), SourceUnavailable, "599: Odd"),
    "leads on and on": (answered("", "Location: /list", status="302 Found"), SourceMisconfigured, "on and on"),
    "leads nowhere": (answered("", "Location: gopher://x", status="302 Found"), SourceMisconfigured, "redirects"),
    "leads to a user": (answered("", "Location: http://a@b/", status="302 Found"), SourceMisconfigured, "no user"),
    "304": (answered("", status="304 Not Modified"), SourceMisconfigured, "304"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_an_answer_that_is_none_is_told_by_name_and_counts_nothing(case: str) -> None:
    answer, expected, words = BROKEN[case]
    began = time.monotonic()

    async with raw_server(answer) as url, source_of(url, max_response_mib=1) as source:
        with pytest.raises(TillError, match=words or None) as caught:
            await batches_of(source)

    assert type(caught.value) is expected
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.monotonic() - began < DEADLINE_S / 2


async def stall_at_once(head: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(DEADLINE_S)


async def stall_in_headers(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await asyncio.sleep(DEADLINE_S)


async def stall_in_body(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 999\r\n\r\n" + PAGE.encode())
    await asyncio.sleep(DEADLINE_S)


async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 99999\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("answer", [stall_at_once, stall_in_headers, stall_in_body, drip])
async def test_a_server_that_keeps_us_waiting_is_left(answer: object) -> None:
    began = time.monotonic()

    async with raw_server(answer) as url, source_of(url, answer_s=0.3, request_s=0.8) as source:  # type: ignore[arg-type]
        with pytest.raises(SourceUnavailable, match="timeout"):
            await batches_of(source)

    assert time.monotonic() - began < DEADLINE_S / 2


async def test_nobody_at_the_address_is_worth_waiting_for() -> None:
    async with raw_server(b"") as url:
        pass  # the port is free again

    async with source_of(url) as source:
        with pytest.raises(SourceUnavailable, match="127"):
            await batches_of(source)


@pytest.mark.parametrize(
    ("header", "waits_s"),
    [
        ("Retry-After: 7", 7.0),
        ("Retry-After: Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Retry-After: Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("Retry-After: 999999999999999999999", 300.0),
        ("Retry-After: -5", 0.0),
        ("Retry-After: soon", 0.0),
        ("Retry-After: NaN", 0.0),
        ("X: y", 0.0),
    ],
)
async def test_an_api_that_asks_for_silence_gets_it_within_reason(header: str, waits_s: float) -> None:
    assert NOW.isoformat() == "2026-01-02T03:04:05+00:00"

    async with raw_server(answered("", header, status="429 Too Many Requests")) as url, source_of(url) as source:
        with pytest.raises(SourceThrottled) as caught:
            await batches_of(source)

    assert caught.value.retry_after_s == waits_s


async def test_an_api_in_repair_says_how_long() -> None:
    answer = answered("", "Retry-After: 9", status="503 Service Unavailable")

    async with raw_server(answer) as url, source_of(url) as source:
        with pytest.raises(SourceThrottled) as caught:
            await batches_of(source)

    assert caught.value.retry_after_s == 9.0


@pytest.mark.parametrize("status", ["408 Request Timeout", "425 Too Early", "500 Internal", "502 Bad Gateway"])
async def test_whatever_may_be_tried_again_is_tried_when_the_api_says(status: str) -> None:
    async with raw_server(answered("", "Retry-After: 9", status=status)) as url, source_of(url) as source:
        with pytest.raises(SourceUnavailable) as caught:
            await batches_of(source)

    assert caught.value.retry_after_s == 9.0


@pytest.mark.parametrize(
    "answer",
    [
        answered(PAGE),
        answered(PAGE, content_type="application/vnd.api+json; charset=utf-8"),
        answered(PAGE, content_type="text/json"),
        answered("﻿" + PAGE),
        zipped(PAGE.encode()),
        answered(gzip.compress(PAGE.encode()[:9]) + gzip.compress(PAGE.encode()[9:]), "Content-Encoding: gzip"),
        answered(zlib.compress(PAGE.encode()), "Content-Encoding: deflate"),
        answered(zlib.compress(PAGE.encode(), wbits=-15), "Content-Encoding: deflate"),
        HEAD + b"Connection: close\r\n\r\n" + PAGE.encode(),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PAGE), PAGE.encode()),
    ],
)
async def test_an_answer_is_read_however_it_is_packed(answer: bytes) -> None:
    async with raw_server(answer) as url, source_of(url) as source:
        assert references(await batches_of(source)) == ["p-1"]


@pytest.mark.parametrize("answer", [answered(""), answered("", status="204 No Content"), answered('{"data":null}')])
async def test_an_answer_without_anything_is_a_page_without_records(answer: bytes) -> None:
    async with raw_server(answer) as url, source_of(url) as source:
        assert references(await batches_of(source)) == []


async def test_a_status_of_200_can_say_that_it_failed() -> None:
    body = '{"data":[],"errors":[{"message":"no such field"}]}'

    async with raw_server(answered(body)) as url, source_of(url, {"failure": "$.errors"}) as source:
        with pytest.raises(SourceUnavailable, match="no such field"):
            await batches_of(source)


POISON = {
    '{"id":"p-2","amount":1e2,"currency":"EUR","status":"captured","created_at":1767322800}': "invalid_amount",
    '{"id":"p-2","amount":0.1,"currency":"EUR","status":"captured","created_at":1767322800}': "invalid_amount",
    '{"id":"p-2","amount":NaN,"currency":"EUR","status":"captured","created_at":1767322800}': "malformed_json",
    '{"id":"p-2","id":"p-3","amount":1,"currency":"EUR","status":"captured"}': "duplicate_key",
    '{"id":"p\\u0000","amount":1,"currency":"EUR","status":"captured"}': "nul_character",
    '{"id":"p\\ud800","amount":1,"currency":"EUR","status":"captured"}': "invalid_encoding",
    '{"id":"p-2","amount":1,,"currency":"EUR"}': "malformed_json",
    f'{{"id":"p-2","amount":{"9" * 5_000},"currency":"EUR","status":"captured"}}': "malformed_json",
    f'{{"id":"p-2","a":{"[" * 5_000}{"]" * 5_000}}}': "too_deep",
    f'{{"id":"p-2","a":{"[" * 99}{"]" * 99}}}': "too_deep",
    "[1, 2]": "not_an_object",
    "null": "not_an_object",
    '"text"': "not_an_object",
}


@pytest.mark.parametrize("poison", POISON)
async def test_one_bad_record_costs_itself_alone(poison: str) -> None:
    body = f'{{"data":[{ROW},{poison},{ROW.replace("p-1", "p-9")}]}}'

    async with raw_server(answered(body)) as url, source_of(url) as source:
        batches = await batches_of(source)

    (rejection,) = (each for batch in batches for each in batch.rejections)
    assert references(batches) == ["p-1", "p-9"]
    assert rejection.reason == POISON[poison]
    assert rejection.raw == poison.encode()


async def test_bytes_that_are_no_text_are_kept_as_they_were() -> None:
    bad = ROW.replace("p-1", "p-2").encode().replace(b"captured", b"capt\xff\xfered")

    async with raw_server(answered(b'{"data":[' + ROW.encode() + b"," + bad + b"]}")) as url, source_of(url) as source:
        batches = await batches_of(source)

    (rejection,) = (each for batch in batches for each in batch.rejections)
    assert references(batches) == ["p-1"]
    assert (rejection.reason, rejection.raw) == ("invalid_encoding", bad)


async def test_amounts_are_what_the_text_says() -> None:
    rows = ",".join(
        ROW.replace("p-1", f"p-{n}").replace(":100,", f":{text},")
        for n, text in enumerate(["0.07", "4.35", '"1234567890123.45"', "90071992547409.93", "1.10"])
    )

    async with raw_server(answered(f'{{"data":[{rows}]}}')) as url, source_of(url, amount_unit="major") as source:
        batches = await batches_of(source)

    amounts = [record.payment.amount for batch in batches for record in batch.records]
    assert amounts == [7, 435, 123456789012345, 9007199254740993, 110]


async def test_more_records_than_may_be_are_no_page() -> None:
    async with raw_server(answered(f'{{"data":[{ROW},{ROW},{ROW}]}}')) as url, source_of(url, max_records=2) as source:
        with pytest.raises(SourceMisconfigured, match="more than 2 records"):
            await batches_of(source)


async def test_a_large_answer_comes_in_batches_of_bounded_size() -> None:
    rows = ",".join(ROW.replace("p-1", f"p-{n}") for n in range(2_500))

    async with raw_server(answered(f'{{"data":[{rows}]}}')) as url, source_of(url, answer_s=5.0) as source:
        batches = await batches_of(source)

    assert references(batches) == [f"p-{n}" for n in range(2_500)]
    assert max(batch.read for batch in batches) == 500
