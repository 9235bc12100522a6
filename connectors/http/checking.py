"""The check of an API, step by step, each timed: how far it works, and what to do where it does not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from yarl import URL

from connectors.check import step, understood
from connectors.http.client import Client
from connectors.http.page import Page
from connectors.network import Guard
from connectors.source import Batch, CheckStep
from schemas.errors import SourceMisconfigured, SourceUnavailable

_HANDSHAKE_S = 10.0
_SOON_DAYS = 21


class Sample(NamedTuple):
    """A resource's first page, to be had: whose, and how."""

    name: str
    take: Callable[[], Awaitable[tuple[Page, Batch]]]


async def check(
    url: URL,
    guard: Guard,
    tls: Callable[[], ssl.SSLContext],
    client: Callable[[], Client],
    samples: Sequence[Sample],
) -> list[CheckStep]:
    """The steps up to the first that fails. Raises nothing."""
    steps: list[CheckStep] = []
    host, port = url.host or "", url.port or 0

    async def find() -> str:
        return ", ".join(map(str, await guard.resolve(host, port)))

    async def connect() -> str:
        (await guard.connect(host, port)).close()
        return f"{host}:{port}"

    async def shake_hands() -> str:
        return await _handshake(guard, host, port, tls())

    async def credentials() -> str:
        return await client().shown_credentials()

    wanted: list[tuple[str, Callable[[], Awaitable[str]]]] = [("find the host", find), ("connect", connect)]
    if url.scheme == "https":
        wanted.append(("agree on TLS", shake_hands))
    wanted.append(("have credentials", credentials))
    wanted += [(f"read {sample.name}", partial(_read, sample)) for sample in samples]
    for name, attempt in wanted:
        steps.append(await step(name, attempt()))
        if not steps[-1].ok:
            break
    return steps


async def _handshake(guard: Guard, host: str, port: int, context: ssl.SSLContext) -> str:
    connection = await guard.connect(host, port)
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            _, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        raise SourceMisconfigured(
            f"the certificate is not accepted: {exc.verify_message}",
            hint="is the host name right? A private authority is named in tls_authorities",
        ) from None
    except ssl.SSLError as exc:
        raise SourceMisconfigured(
            f"no TLS connection: {exc.reason or 'the handshake failed'}", hint="does the server speak TLS 1.2 or newer?"
        ) from None
    except (OSError, TimeoutError) as exc:
        raise SourceUnavailable(f"the handshake fails: {str(exc) or 'timeout'}") from None
    session = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    version, certificate = session.version(), session.getpeercert()
    return f"{version}{_until(certificate)}"


def _until(certificate: dict[str, str] | None) -> str:
    if not certificate or "notAfter" not in certificate:
        return ", NOT VERIFIED"
    at = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    soon = " SOON:" if (at - datetime.now(UTC)).days < _SOON_DAYS else ""
    return f", the certificate ends{soon} {at.date()}"


async def _read(sample: Sample) -> str:
    page, batch = await sample.take()
    if not len(page):
        return "an empty page: no record of that time"
    return f"{len(page)} records on the first page; {understood(batch, of='a record of the API')}"
