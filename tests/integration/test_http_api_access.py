"""Credentials, TLS and the way out: who is asked, who is told what, and who never hears of it."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.source import Task
from schemas.errors import SourceMisconfigured, SourceUnauthorised, SourceUnavailable, TillError
from tests.integration.http_kit import (
    NOW,
    RESOURCE,
    SteadyClock,
    answered,
    batches_of,
    raw_server,
    references,
    source_of,
    tasks_of,
)
from tillstream.embedded import gateway
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import WrittenBook

AT = int(NOW.timestamp()) - 600
ROW = {"id": "p-1", "amount": 100, "currency": "EUR", "status": "captured", "created_at": AT}
PAGE = json.dumps({"data": [ROW]})
SECRETS = {
    "${env:ID}": gateway.KEY_ID,
    "${env:SECRET}": gateway.KEY_SECRET,
    "${env:TOKEN}": gateway.BEARER,
    "${env:KEY}": gateway.API_KEY,
    "${env:CLIENT}": gateway.CLIENT_ID,
    "${env:CLIENT_SECRET}": gateway.CLIENT_SECRET,
    "${env:WRONG}": "canary-wrong-credential",
}
AUTHS: dict[str, dict[str, Any]] = {
    "none": {},
    "basic": {"authentication_type": "basic", "username": "${env:ID}", "password": "${env:SECRET}"},
    "bearer": {"authentication_type": "BEARER", "token": "${env:TOKEN}"},
    "header": {"authentication_type": "api_key", "api_key": "${env:KEY}"},
    "query": {
        "authentication_type": "api_key",
        "api_key": "${env:KEY}",
        "api_key_name": "key",
        "api_key_place": "query",
    },
    "oauth2": {
        "authentication_type": "oauth2",
        "client_id": "${env:CLIENT}",
        "client_secret": "${env:CLIENT_SECRET}",
    },
}


@pytest.fixture
async def server() -> AsyncIterator[Gateway]:
    book = WrittenBook()
    book.write(ROW)
    async with Gateway(book, clock=NOW.timestamp) as running:
        yield running


def listed(auth: str, paging: str = "link") -> dict[str, Any]:
    query = {"from": "{from}", "to": "{to}", "size": "1"}
    return {"path": f"/lists/{auth}/{paging}", "paging": paging, "query": query}


@pytest.mark.parametrize("place", ["header", "body"])
@pytest.mark.parametrize("auth", AUTHS)
async def test_credentials_are_shown_as_the_api_wants_them(server: Gateway, auth: str, place: str) -> None:
    options = AUTHS[auth] | (
        {"token_url": f"{server.url}/oauth/token", "client_place": place} if auth == "oauth2" else {}
    )

    async with source_of(server.url, listed(auth), secrets=SECRETS, **options) as source:
        assert references(await batches_of(source)) == ["p-1"]


@pytest.mark.parametrize("auth", [auth for auth in AUTHS if auth != "none"])
async def test_wrong_credentials_pause_the_connector_after_one_request(server: Gateway, auth: str) -> None:
    wrong = {name: "${env:WRONG}" if str(value).startswith("${") else value for name, value in AUTHS[auth].items()}
    if auth == "oauth2":
        wrong["token_url"] = f"{server.url}/oauth/token"

    async with source_of(server.url, listed(auth), secrets=SECRETS, **wrong) as source:
        with pytest.raises(SourceUnauthorised, match=r"API responded with status 401: Unauthorized$") as caught:
            await batches_of(source)

    assert len(server.asked) == 1
    assert "Authentication failed" in caught.value.hint or "bad" in caught.value.hint


async def test_fifty_who_need_a_token_ask_once(server: Gateway) -> None:
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token", "parallel": 64}
    resources = [{**RESOURCE, **listed("oauth2"), "name": f"r-{n}"} for n in range(50)]

    async with source_of(server.url, secrets=SECRETS, **options | {"resources": resources}) as source:
        found = await tasks_of(source)
        for revocations in range(3):
            await asyncio.gather(*(_drained(source, task) for task in found))
            assert server.tokens_given == revocations + 1
            server.expire_tokens()

    refused = [each for each in server.asked if each.status == 401]
    assert len(refused) <= 2 * 50  # each asks once more, and no more than once


async def test_a_token_is_renewed_before_it_expires(server: Gateway) -> None:
    clock = SteadyClock(NOW)
    server.token_life_s = 100.0
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token"}

    async with source_of(server.url, listed("oauth2"), clock=clock, secrets=SECRETS, **options) as source:
        for elapsed_s, tokens in ((0, 1), (89, 1), (2, 2)):
            clock.advance(elapsed_s)
            await batches_of(source)
            assert server.tokens_given == tokens

    assert not [each for each in server.asked if each.status == 401]


async def test_a_token_that_is_refused_for_good_is_asked_for_twice_and_no_more(server: Gateway) -> None:
    server.misbehave("/lists", times=9, status=401)
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token"}

    async with source_of(server.url, listed("oauth2"), secrets=SECRETS, **options) as source:
        with pytest.raises(SourceUnauthorised):
            await batches_of(source)

    assert [each.path for each in server.asked].count("/oauth/token") == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": 503}, SourceUnavailable),
        ({"status": 400, "text": '{"error":"invalid_client"}'}, SourceUnauthorised),
        ({"text": "<html>"}, SourceUnavailable),
        ({"text": "{}"}, SourceUnavailable),
        ({"text": '{"access_token":"x","token_type":"mac"}'}, SourceMisconfigured),
        ({"text": '{"access_token":"x\\ny"}'}, SourceMisconfigured),
        ({"status": 302, "headers": {"Location": "http://169.254.169.254/"}}, SourceUnauthorised),
    ],
)
async def test_a_token_endpoint_that_fails_is_told_apart(
    server: Gateway, answer: dict[str, Any], expected: type[TillError]
) -> None:
    server.misbehave("/oauth", times=3, **answer)
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token"}

    async with source_of(server.url, listed("oauth2"), secrets=SECRETS, **options) as source:
        with pytest.raises(expected):
            await batches_of(source)


@pytest.mark.parametrize("status", [429, 502, 503])
async def test_a_token_endpoint_that_asks_for_silence_gets_it(server: Gateway, status: int) -> None:
    server.misbehave("/oauth", status=status, headers={"Retry-After": "9"})
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token"}

    async with source_of(server.url, listed("oauth2"), secrets=SECRETS, **options) as source:
        with pytest.raises(TillError) as caught:
            await batches_of(source)

    assert (caught.value.retry_after_s, caught.value.retryable) == (9.0, True)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
@pytest.mark.parametrize("auth", ["basic", "bearer", "header", "query"])
async def test_a_server_that_repeats_our_credentials_makes_nobody_else_tell_them(
    server: Gateway, auth: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(request: web.Request) -> web.Response:
        said = f"{dict(request.headers)} {request.path_qs} " * 9
        return web.Response(status=status, text=said, content_type="text/plain")

    server.misbehave("/lists", times=9, handler=echo)
    caplog.set_level(logging.DEBUG)

    async with source_of(server.url, listed(auth), secrets=SECRETS, **AUTHS[auth]) as source:
        steps = await source.check()
        with pytest.raises(TillError) as caught:
            await batches_of(source)

    told = f"{caught.value!r} {caught.value} {caught.value.hint} {caught.value.__dict__} {steps} {caplog.text}"
    pair = base64.b64encode(f"{gateway.KEY_ID}:{gateway.KEY_SECRET}".encode()).decode()
    assert "***" in told
    assert not [secret for secret in (gateway.KEY_SECRET, gateway.BEARER, gateway.API_KEY, pair) if secret in told]


async def test_a_next_address_is_kept_without_the_key(server: Gateway) -> None:
    server.book.write(ROW | {"id": "p-2"})  # type: ignore[attr-defined]

    async with source_of(server.url, listed("query"), secrets=SECRETS, **AUTHS["query"]) as source:
        batches = await batches_of(source)

    assert references(batches) == ["p-1", "p-2"]
    assert "offset=1" in repr(batches[0].cursor)
    assert gateway.API_KEY not in repr([batch.cursor for batch in batches])


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server of another origin, and what it heard."""
    heard: list[bytes] = []

    async def listen(head: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(head)
        writer.write(answered(PAGE))

    async with raw_server(listen) as url:
        yield url, heard


@pytest.mark.parametrize("auth", ["basic", "bearer", "header", "query"])
async def test_a_redirect_to_another_origin_carries_no_credentials(server: Gateway, auth: str) -> None:
    async with canary() as (other, heard):
        server.misbehave("/lists", status=307, headers={"Location": f"{other}/elsewhere"})
        headers = {"request_headers": {"X-Tenant": "${env:KEY}"}}

        async with source_of(server.url, listed(auth), secrets=SECRETS, **AUTHS[auth], **headers) as source:
            assert references(await batches_of(source)) == ["p-1"]

    (head,) = heard
    told = head.lower()
    assert b"authorization" not in told
    assert b"x-api-key" not in told
    assert b"x-tenant" not in told
    assert gateway.API_KEY.encode() not in head


async def test_a_redirect_within_the_origin_keeps_its_credentials(server: Gateway) -> None:
    server.misbehave("/elsewhere", status=302, headers={"Location": "/lists/basic/none"})
    resource = {**listed("basic", "none"), "path": "/elsewhere", "records": "$"}

    async with source_of(server.url, resource, secrets=SECRETS, **AUTHS["basic"]) as source:
        assert references(await batches_of(source)) == ["p-1"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_post_is_not_led_elsewhere(server: Gateway, status: int) -> None:
    resource = {**listed("none"), "method": "POST", "body": {"from": "{from}"}}

    async with canary() as (other, heard):
        server.misbehave("/lists", status=status, headers={"Location": other})
        async with source_of(server.url, resource) as source:
            with pytest.raises(SourceMisconfigured, match="redirects a POST"):
                await batches_of(source)

    assert heard == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://localhost.:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://0x7f000001:{port}/",
        "http://2130706433:{port}/",
        "http://127.1:{port}/",
        "http://0:{port}/",
        "http://[::1]:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
    ],
)
async def test_no_redirect_leads_into_our_own_network(server: Gateway, target: str) -> None:
    """The API itself is allowed by its one address; what it points at is not."""
    async with canary() as (other, heard):
        location = target.format(port=other.rpartition(":")[2])
        server.misbehave("/lists", status=302, headers={"Location": location})
        url = server.url.replace("127.0.0.1", "127.0.0.2")

        async with source_of(url, listed("none"), allow_networks=["127.0.0.2/32"]) as source:
            with pytest.raises((SourceMisconfigured, SourceUnavailable)):
                await batches_of(source)

    assert heard == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://localhost:9/", "http://[::1]:9/", "http://169.254.169.254/"]
)
async def test_an_address_in_our_own_network_is_not_asked_unless_it_is_allowed(url: str) -> None:
    async with source_of(url, allow_networks=[]) as source:
        with pytest.raises(SourceMisconfigured, match="not a public address") as caught:
            await batches_of(source)
        steps = await source.check()

    assert "allow_networks" in caught.value.hint
    assert not steps[-1].ok
    assert len(steps) == 1


@pytest.mark.parametrize("next_page", ["{other}/list", "//evil.example/list", "https://evil.example/"])
async def test_a_next_page_of_another_origin_is_refused_and_never_asked(next_page: str) -> None:
    async with canary() as (other, heard):
        body = json.dumps({"data": [ROW], "next": next_page.format(other=other)})
        async with raw_server(answered(body)) as url:
            resource = {"paging": "link", "next": "$.next"}
            async with source_of(url, resource, secrets=SECRETS, **AUTHS["bearer"]) as source:
                with pytest.raises(SourceMisconfigured, match="origin"):
                    await batches_of(source)

    assert heard == []


# TLS.


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._signed(self.name, self.key, authority=True)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, host: str, *, days: int = 30) -> tuple[str, str]:
        """A certificate for the host, and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._signed(name, key, host=host, days=days)
        kept = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return (
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            key.private_bytes(serialization.Encoding.PEM, *kept).decode(),
        )

    def _signed(
        self, name: x509.Name, key: Any, *, authority: bool = False, host: str = "", days: int = 30
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(days=60)).not_valid_after(now + dt.timedelta(days=days))
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if host:
            alternative = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            made = made.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        return made.sign(self.key, hashes.SHA256())


@asynccontextmanager
async def tls_server(
    folder: Path, authority: Authority, *, host: str = "127.0.0.1", days: int = 30, wants: str = "", newest: Any = None
) -> AsyncIterator[str]:
    certificate, key = authority.issue(host, days=days)
    (folder / "server.pem").write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    if newest is not None:
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
        context.set_ciphers("ALL:@SECLEVEL=0")
    if wants:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=wants)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answered(PAGE))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def test_a_private_authority_can_be_named(tmp_path: Path, authority: Authority) -> None:
    secrets = {"${file:ca.pem}": authority.pem}

    async with (
        tls_server(tmp_path, authority) as url,
        source_of(url, secrets=secrets, tls_authorities="${file:ca.pem}") as source,
    ):
        assert references(await batches_of(source)) == ["p-1"]
        steps = await source.check()

    assert [step.name for step in steps] == [
        "find the host",
        "connect",
        "agree on TLS",
        "have credentials",
        "read payments",
    ]
    assert all(step.ok for step in steps), steps
    assert "TLSv1.3, the certificate ends" in steps[2].detail


@pytest.mark.parametrize(
    "how", [{}, {"host": "127.0.0.9"}, {"days": -1}], ids=["unknown authority", "another host", "expired"]
)
async def test_a_server_that_cannot_prove_who_it_is_pauses_the_connector(
    tmp_path: Path, authority: Authority, how: dict[str, Any]
) -> None:
    secrets = {"${file:ca.pem}": authority.pem}
    options = {"tls_authorities": "${file:ca.pem}"} if how else {}

    async with tls_server(tmp_path, authority, **how) as url, source_of(url, secrets=secrets, **options) as source:
        with pytest.raises(SourceMisconfigured, match="certificate is not accepted"):
            await batches_of(source)
        steps = await source.check()

    assert (steps[-1].name, steps[-1].ok) == ("agree on TLS", False)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_an_old_protocol_is_refused(tmp_path: Path, authority: Authority) -> None:
    secrets = {"${file:ca.pem}": authority.pem}

    async with (
        tls_server(tmp_path, authority, newest=ssl.TLSVersion.TLSv1_1) as url,
        source_of(url, secrets=secrets, tls_authorities="${file:ca.pem}") as source,
    ):
        with pytest.raises(TillError, match="connect"):
            await batches_of(source)


async def test_a_client_certificate_is_shown_where_it_is_wanted(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("till")
    secrets = {"${file:ca.pem}": authority.pem, "${file:me.pem}": certificate, "${file:me.key}": key}
    shown = {"tls_certificate": "${file:me.pem}", "tls_key": "${file:me.key}"}

    async with tls_server(tmp_path, authority, wants=authority.pem) as url:
        async with source_of(url, secrets=secrets, tls_authorities="${file:ca.pem}", **shown) as source:
            assert references(await batches_of(source)) == ["p-1"]
        async with source_of(url, secrets=secrets, tls_authorities="${file:ca.pem}") as source:
            with pytest.raises(TillError):
                await batches_of(source)


async def test_verification_is_off_only_outside_production_and_never_quietly(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with tls_server(tmp_path, authority) as url:
        async with source_of(url, verify_tls=False) as source:
            assert references(await batches_of(source)) == ["p-1"]
        assert "THE SERVER IS NOT VERIFIED" in caplog.text

        async with source_of(url, verify_tls=False, production=True) as source:
            with pytest.raises(SourceMisconfigured, match="refused in production"):
                await batches_of(source)


async def test_credentials_go_nowhere_in_the_clear_in_production(server: Gateway) -> None:
    async with source_of(server.url, listed("basic"), secrets=SECRETS, production=True, **AUTHS["basic"]) as source:
        with pytest.raises(SourceMisconfigured, match="in the clear"):
            await batches_of(source)

    assert not server.asked


HEADER = {"request_headers": {"X-Tenant": "Tenant ${env:KEY}"}}


def carrying(place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A resource and options that show `${env:KEY}` in the header, the address or the body."""
    resource = listed("none")
    if place == "query":
        resource["query"] = {**resource["query"], "tenant": "Tenant ${env:KEY}"}
    elif place == "body":
        resource |= {"method": "POST", "body": {"who": {"tenant": ["Tenant ${env:KEY}"]}}}
    return resource, HEADER if place == "header" else {}


@pytest.mark.parametrize("place", ["header", "query", "body"])
async def test_a_secret_inside_a_text_is_filled_in_when_it_is_sent_and_told_nowhere(place: str) -> None:
    heard: list[bytes] = []

    async def listen(head: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(head)
        writer.write(answered(gateway.API_KEY.encode() + head, status="400 Bad Request"))

    resource, options = carrying(place)
    async with raw_server(listen) as url, source_of(url, resource, secrets=SECRETS, **options) as source:
        with pytest.raises(SourceMisconfigured) as caught:
            await batches_of(source)

    spelled = {"header": f"Tenant {gateway.API_KEY}", "query": f"Tenant+{gateway.API_KEY}"}.get(place, "POST")
    assert spelled.encode() in heard[0]
    assert "***" in str(caught.value)
    assert gateway.API_KEY not in f"{caught.value} {caught.value.__dict__}"


async def test_a_next_address_is_kept_without_a_secret_parameter_and_asked_with_it(server: Gateway) -> None:
    server.book.write(ROW | {"id": "p-2"})  # type: ignore[attr-defined]

    async with source_of(server.url, carrying("query")[0], secrets=SECRETS) as source:
        batches = await batches_of(source)

    assert references(batches) == ["p-1", "p-2"]
    assert [each.query["tenant"] for each in server.asked] == [f"Tenant {gateway.API_KEY}"] * 2
    assert "offset=1" in repr(batches[0].cursor)
    assert gateway.API_KEY not in repr([batch.cursor for batch in batches])


@pytest.mark.parametrize("place", ["header", "query"])
async def test_no_secret_of_a_text_goes_along_to_another_origin(server: Gateway, place: str) -> None:
    resource, options = carrying(place)
    async with canary() as (other, heard):
        server.misbehave("/lists", status=307, headers={"Location": f"{other}/elsewhere"})
        async with source_of(server.url, resource, secrets=SECRETS, **options) as source:
            assert references(await batches_of(source)) == ["p-1"]

    (head,) = heard
    assert b"tenant" not in head.lower()
    assert gateway.API_KEY.encode() not in head


@pytest.mark.parametrize("place", ["header", "query", "body"])
async def test_no_secret_of_a_text_goes_anywhere_in_the_clear_in_production(server: Gateway, place: str) -> None:
    resource, options = carrying(place)
    async with source_of(server.url, resource, secrets=SECRETS, production=True, **options) as source:
        with pytest.raises(SourceMisconfigured, match="in the clear"):
            await batches_of(source)

    assert not server.asked


@pytest.mark.parametrize("place", ["header", "body"])
async def test_no_client_of_oauth2_is_named_in_the_clear_in_production(server: Gateway, place: str) -> None:
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token", "client_place": place}
    async with source_of("https://127.0.0.1:9", secrets=SECRETS, production=True, **options) as source:
        with pytest.raises(TillError, match="in the clear"):
            await batches_of(source)

    assert not server.asked


async def test_what_is_no_secret_may_go_in_the_clear(server: Gateway) -> None:
    options = {"request_headers": {"X-Mode": "live"}, "production": True}
    async with source_of(server.url, listed("none"), **options) as source:
        assert references(await batches_of(source)) == ["p-1"]

    assert [each.headers["X-Mode"] for each in server.asked] == ["live"]


@pytest.mark.parametrize("auth", [auth for auth in AUTHS if auth != "none"])
async def test_headers_beside_wrong_credentials_cost_no_second_request(server: Gateway, auth: str) -> None:
    wrong = {name: "${env:WRONG}" if str(value).startswith("${") else value for name, value in AUTHS[auth].items()}
    if auth == "oauth2":
        wrong["token_url"] = f"{server.url}/oauth/token"
    headers = {"request_headers": {"X-Client": "abc", "X-Tenant": "${env:KEY}"}}

    async with source_of(server.url, listed(auth), secrets=SECRETS, **wrong, **headers) as source:
        with pytest.raises(SourceUnauthorised):
            await batches_of(source)

    assert len(server.asked) == 1


class Changing:
    """Secrets that somebody changes."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets

    def resolve(self, reference: str) -> str:
        return self.secrets[reference] if reference else ""

    def learn(self, secret: str) -> None:
        pass


@pytest.mark.parametrize("auth", ["header", "none"])
async def test_a_secret_that_was_changed_while_the_api_was_asked_is_shown_at_once(server: Gateway, auth: str) -> None:
    secrets = Changing({**SECRETS, "${env:KEY}": "the old one"})
    options = AUTHS[auth] if auth == "header" else {"request_headers": {"X-Api-Key": "${env:KEY}"}}

    async def change(request: web.Request) -> web.Response:
        secrets.secrets["${env:KEY}"] = gateway.API_KEY
        return web.Response(status=401)

    server.misbehave("/lists", handler=change)
    async with source_of(server.url, listed("header"), secrets=secrets, **options) as source:
        assert references(await batches_of(source)) == ["p-1"]


async def test_every_request_takes_its_turn(server: Gateway) -> None:
    """A token, a redirect, a token that is refused and its successor: the API counts them all."""
    clock = SteadyClock(NOW)
    options = AUTHS["oauth2"] | {"token_url": f"{server.url}/oauth/token", "requests_per_s": 100}
    server.misbehave("/lists", status=307, headers={"Location": "/lists/oauth2/link"})
    server.misbehave("/lists", status=401)

    async with source_of(server.url, listed("oauth2"), clock=clock, secrets=SECRETS, **options) as source:
        assert references(await batches_of(source)) == ["p-1"]

    assert [each.status for each in server.asked] == [200, 307, 401, 200, 200]
    # the wall stands still: the first turn is free, each of the others is waited for
    assert [round(each, 3) for each in clock.slept] == [0.01, 0.02, 0.03, 0.04]


async def test_certificates_that_were_changed_are_shown_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority()
    certificate, key = stranger.issue("till")
    secrets = Changing({"${file:ca.pem}": authority.pem, "${file:me.pem}": certificate, "${file:me.key}": key})
    shown = {"tls_certificate": "${file:me.pem}", "tls_key": "${file:me.key}", "tls_authorities": "${file:ca.pem}"}

    async with (
        tls_server(tmp_path, authority, wants=authority.pem) as url,
        source_of(url, secrets=secrets, **shown) as source,
    ):
        with pytest.raises(TillError):
            await batches_of(source)
        secrets.secrets["${file:me.pem}"], secrets.secrets["${file:me.key}"] = authority.issue("till")
        assert references(await batches_of(source)) == ["p-1"]
        secrets.secrets["${file:ca.pem}"] = stranger.pem
        with pytest.raises(SourceMisconfigured, match="certificate is not accepted"):
            await batches_of(source)


async def test_a_pair_of_which_one_file_was_changed_so_far_is_given_a_moment(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    (certificate, key), clock = authority.issue("till"), SteadyClock(NOW)
    secrets = Changing({"${file:ca.pem}": authority.pem, "${file:me.pem}": certificate, "${file:me.key}": key})
    shown = {"tls_certificate": "${file:me.pem}", "tls_key": "${file:me.key}", "tls_authorities": "${file:ca.pem}"}

    async with (
        tls_server(tmp_path, authority, wants=authority.pem) as url,
        source_of(url, secrets=secrets, clock=clock, **shown) as source,
    ):
        assert references(await batches_of(source)) == ["p-1"]
        secrets.secrets["${file:me.key}"] = authority.issue("till")[1]
        assert references(await batches_of(source)) == ["p-1"]
        assert "cannot be used" in caplog.text
        clock.advance(61)
        with pytest.raises(SourceMisconfigured, match="cannot be used"):
            await batches_of(source)


async def test_no_redirect_leads_out_of_tls(tmp_path: Path, authority: Authority) -> None:
    async with canary() as (other, heard):
        certificate, key = authority.issue("127.0.0.1")
        (tmp_path / "server.pem").write_text(certificate + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answered("", f"Location: {other}", status="302 Found"))
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as running:
            url = f"https://127.0.0.1:{running.sockets[0].getsockname()[1]}"
            secrets = {"${file:ca.pem}": authority.pem}
            async with source_of(url, secrets=secrets, tls_authorities="${file:ca.pem}") as source:
                with pytest.raises(SourceMisconfigured, match="without TLS"):
                    await batches_of(source)

    assert heard == []


async def _drained(source: Any, task: Task) -> None:
    async for _ in source.read(task, None):
        pass
