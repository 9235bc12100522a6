"""
aiohttp on the guarded way out: names are resolved and checked by the guard, and every socket is checked once more.

aiohttp asks no resolver about a host that is an address already, so the check at the socket is the one that holds; a
redirect, a proxy's name and a kept connection that is made anew pass it too.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from connectors.network import CONNECT_S, Guard


class GuardedResolver(AbstractResolver):
    """Resolves through a guard. Raises what the guard raises; aiohttp lets it pass."""

    def __init__(self, guard: Guard, *, timeout_s: float = CONNECT_S) -> None:
        self._guard = guard
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The allowed addresses behind `host`, of this family; AF_UNSPEC: of both."""
        wanted = {socket.AF_INET: (4,), socket.AF_INET6: (6,)}.get(family, (4, 6))
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._guard.resolve(host, port, timeout_s=self._timeout_s)
            if address.version in wanted
        ]

    async def close(self) -> None:
        """Nothing is held."""


def guarded_connector(guard: Guard, *, timeout_s: float = CONNECT_S, **options: Any) -> TCPConnector:
    """A connector for an `aiohttp.ClientSession`; `options` are `TCPConnector`'s own. Needs a running loop."""

    def make(info: Any) -> socket.socket:  # an entry of getaddrinfo
        family, kind, protocol, _, where = info
        guard.check(ip_address(str(where[0]).partition("%")[0]), str(where[0]))
        return socket.socket(family, kind, protocol)

    return TCPConnector(
        resolver=GuardedResolver(guard, timeout_s=timeout_s), socket_factory=make, use_dns_cache=False, **options
    )
