"""
The way out: every address that a source connects to is resolved once, checked, and then connected to as checked.

A host name that points into the worker's own network (loopback, private and link-local ranges, the cloud's metadata
address) is refused, in whatever way the address is spelled or wrapped, unless the connector's `allow_networks` names
the range. One private address among public ones refuses the name: which of them is connected to must not be luck.
Ranges: IANA's registries of special-purpose addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from connectors.word import Called
from schemas.errors import SourceMisconfigured, SourceUnavailable

Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
CONNECT_S = 10.0
_MOST_LOOKUPS = 8  # that do not come back, per connector
_MAX_HOST = 253  # RFC 1035
# what getaddrinfo takes for an IPv4 address, beside the one spelling that people read
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}\.?", re.IGNORECASE | re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)

# Not the Internet, whatever Python's own tables say in this version or that one. 168.63.129.16 looks public and is not:
# behind it a cloud keeps what its machines may know of themselves.
_NOT_PUBLIC_4 = tuple(
    IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "168.63.129.16/32", "224.0.0.0/3"),
    )
)
_PUBLIC_6 = IPv6Network("2000::/3")  # the only range that the Internet routes, but for these parts of it
_NOT_PUBLIC_6 = tuple(IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "3fff::/20"))
# IPv4 addresses inside of others, and how far from the right they stand
_MAPPED, _NAT64, _6TO4 = (IPv6Network(each) for each in ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16"))
_WRAPPED = ((_MAPPED, 0), (_NAT64, 0), (_6TO4, 80))


def _is_network(value: str) -> str:
    ip_network(value)
    return value


Network = Annotated[str, AfterValidator(_is_network), Called("an address range")]
"""A configuration field: an address range such as `10.1.0.0/16`."""


class NetworkConfig(BaseModel):
    """The options of every connector that connects to somewhere, beside those of all connectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_networks: tuple[Network, ...] = Field(
        (), description="Address ranges to allow although they are not public, such as `10.1.0.0/16`."
    )
    connect_s: float = Field(CONNECT_S, gt=0, le=300, description="Seconds to find the host's address and connect.")
    answer_s: float = Field(30.0, gt=0, le=3_600, description="Seconds that the other side may keep silent.")


class Guard:
    """Which addresses one connector may connect to. `allow` names ranges that would be refused otherwise."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._allow: list[_Network] = [ip_network(each) for each in allow]
        self._lookups = 0

    async def resolve(self, host: str, port: int, *, timeout_s: float = CONNECT_S) -> list[Address]:
        """
        The addresses behind a name or a literal, in the resolver's order, all of them allowed. Connect to these.

        Raises:
            SourceUnavailable: retry; the name is not known now.
            SourceMisconfigured: pause; it is no host's name, or an address behind it is not allowed.
        """
        name = _ascii(host)
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._lookup(name, port)
        except TimeoutError as exc:
            raise SourceUnavailable(f"{name}: no answer from the name server within {timeout_s:g} s") from exc
        except (OSError, UnicodeError) as exc:
            raise SourceUnavailable(f"{name}: {getattr(exc, 'strerror', None) or exc}") from exc
        for address in found:
            self.check(address, name)
        return found

    def check(self, address: Address, host: str) -> None:
        """
        Pass if the address may be connected to.

        Raises:
            SourceMisconfigured: pause; it may not.
        """
        if self._allows(address):
            return
        refused = next((inner for inner in _layers(address) if not _is_public(inner) and not self._allows(inner)), None)
        if refused is None:
            return
        behind = "" if refused == address else f" (inside {address})"
        raise SourceMisconfigured(
            f"{host} leads to {refused}{behind}, which is not a public address",
            hint=f"if that is meant, add {refused}/{refused.max_prefixlen} or a wider range to allow_networks",
        )

    async def connect(self, host: str, port: int, *, timeout_s: float = CONNECT_S) -> socket.socket:
        """
        A connected, non-blocking socket to one of the allowed addresses, tried in order within `timeout_s` in all.

        Raises:
            SourceUnavailable: retry; none answers in time. SourceMisconfigured: pause; an address is not allowed.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        addresses = await self.resolve(host, port, timeout_s=timeout_s)
        problem = "no address"
        for index, address in enumerate(addresses):
            share_s = (ends_at - loop.time()) / (len(addresses) - index)  # or one dead address would take it all
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                async with asyncio.timeout(max(share_s, 0)):
                    await loop.sock_connect(connection, (str(address), port))
            except (OSError, TimeoutError) as exc:
                connection.close()
                problem = f"{address}: {(exc.strerror or 'does not answer').lower()}"
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise SourceUnavailable(f"{host}:{port}: {problem}")

    def _allows(self, address: Address) -> bool:
        return any(address in network for network in self._allow if network.version == address.version)

    async def _lookup(self, host: str, port: int) -> list[Address]:
        """In a thread of its own: a name server that keeps silent holds up no other connector, and no exit."""
        if self._lookups >= _MOST_LOOKUPS:
            raise SourceUnavailable(f"{host}: {self._lookups} lookups do not come back")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[Address]] = loop.create_future()
        self._lookups += 1

        def deliver(found: list[Address] | None, error: Exception | None) -> None:
            self._lookups -= 1
            if result.cancelled():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(found or [])

        def work() -> None:
            found, error = None, None
            try:
                found = resolved(host, port)
            except Exception as exc:  # whatever it is, the one who waits raises it
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop has gone, nobody waits
                loop.call_soon_threadsafe(deliver, found, error)

        threading.Thread(target=work, name=f"lookup {host}", daemon=True).start()
        return await result


def resolved(host: str, port: int) -> list[Address]:
    """What the system's resolver says now, each address once, in its order."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in entries))


def _ascii(host: str) -> str:
    """
    The name as the resolver is asked for it: what a reader takes it for, and nothing else.

    Raises:
        SourceMisconfigured: pause; it is no name of a host, or an address in an odd spelling.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    name = host
    if not host.isascii():
        try:
            name = host.encode("idna").decode("ascii")
        except UnicodeError:
            name = ""
    if not name or len(name) > _MAX_HOST or ".." in name or not _HOST.fullmatch(name):
        raise SourceMisconfigured(f"{host[:_MAX_HOST]!r} is no host's name")
    if _NUMERIC.fullmatch(name):
        raise SourceMisconfigured(
            f"{host!r} is an address in an odd spelling", hint="write an address as 192.0.2.1 or 2001:db8::1"
        )
    return name


def _layers(address: Address) -> Iterator[Address]:
    """The addresses that have to be public for this one to be: the one it wraps, and itself."""
    if isinstance(address, IPv4Address):
        yield address
        return
    for network, shift in _WRAPPED:
        if address in network:
            yield IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    if address not in _MAPPED and address not in _NAT64:
        yield address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)
