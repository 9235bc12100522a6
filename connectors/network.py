"""
The way out: every address that a source connects to is resolved once, checked, and then connected to as checked.

A host name that points into the worker's own network (loopback, private and link-local ranges, the cloud's metadata
address) is refused, unless the connector's `allow_networks` names the range.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator

from schemas.errors import SourceMisconfigured, SourceUnavailable

Address = IPv4Address | IPv6Address
_CONNECT_S = 10.0


def _is_network(value: str) -> str:
    ip_network(value)
    return value


Network = Annotated[str, AfterValidator(_is_network)]
"""A configuration field: an address range such as `10.1.0.0/16`."""


class Guard:
    """Which addresses one connector may connect to. `allow` names ranges that would be refused otherwise."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._allow: list[IPv4Network | IPv6Network] = [ip_network(each) for each in allow]

    async def resolve(self, host: str, port: int) -> list[Address]:
        """
        The addresses behind a name or a literal, in the resolver's order, all of them allowed. Connect to these.

        Raises:
            SourceUnavailable: retry; the name is not known now.
            SourceMisconfigured: pause; an address behind it is not allowed.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise SourceUnavailable(f"{host}: {exc.strerror or exc}") from exc
        addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
        for address in addresses:
            self.check(address, host)
        return addresses

    def check(self, address: Address, host: str) -> None:
        """
        Pass if the address may be connected to.

        Raises:
            SourceMisconfigured: pause; it may not.
        """
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        real = mapped or address
        if any(real in network for network in self._allow if network.version == real.version):
            return
        if not real.is_global or real.is_multicast:
            raise SourceMisconfigured(
                f"{host} leads to {real}, which is not a public address",
                hint=f"if that is meant, add {real}/{real.max_prefixlen} or a wider range to allow_networks",
            )

    async def connect(self, host: str, port: int, *, timeout_s: float = _CONNECT_S) -> socket.socket:
        """
        A connected, non-blocking socket to one of the allowed addresses, tried in order.

        Raises:
            SourceUnavailable: retry; none answers in time. SourceMisconfigured: pause; an address is not allowed.
        """
        loop = asyncio.get_running_loop()
        problem = "no address"
        for address in await self.resolve(host, port):
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                async with asyncio.timeout(timeout_s):
                    await loop.sock_connect(connection, (str(address), port))
            except (OSError, TimeoutError) as exc:
                connection.close()
                problem = f"{address} {exc.strerror or 'does not answer'}"
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise SourceUnavailable(f"{host}:{port}: {problem}".lower())
