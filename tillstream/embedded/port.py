"""
Loopback ports that stay the same from one start to the next.

A stack notes its ports, so that clients configured by hand still find it after a restart; a port that somebody else has
taken meanwhile is replaced. New ports lie below the range the kernel hands out for outgoing connections: a client that
keeps trying to reach a stopped server on a port of that range ends up connected to itself now and then, and the server
can then no longer bind it.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from schemas.errors import StackError

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 20_000
# Linux' default range of outgoing ports begins here: Documentation/networking/ip-sysctl, ip_local_port_range.
DEFAULT_OUTGOING_FROM = 32_768
OUTGOING_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
ATTEMPTS = 200


class PortBook:
    """The ports of one service, by name, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def reserve(self, names: Iterable[str]) -> dict[str, int]:
        """
        A port for each name: the noted one while nobody else listens on it, else a free one, which is noted.

        Raises:
            StackError: no free port was found.
        """
        noted = self.noted()
        chosen: dict[str, int] = {}
        for name in names:
            port = noted.get(name)
            usable = port is not None and port not in chosen.values() and is_free(port)
            chosen[name] = port if port is not None and usable else find_free(excluding=chosen.values())
        if noted != chosen:
            self._path.write_text(json.dumps(chosen, indent=1) + "\n")
        return chosen

    def noted(self) -> dict[str, int]:
        """The ports of the last start; empty before the first."""
        try:
            return {str(name): int(port) for name, port in json.loads(self._path.read_text()).items()}
        except (FileNotFoundError, ValueError, AttributeError):
            return {}


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections of a dead predecessor that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def find_free(*, excluding: Iterable[int] = ()) -> int:
    """
    A loopback port on which nobody listens, outside the range of outgoing connections.

    Raises:
        StackError: none was found.
    """
    taken = set(excluding)
    highest = outgoing_from() - 1
    for _ in range(ATTEMPTS):
        port = random.randint(LOWEST_PORT, highest)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free loopback port between {LOWEST_PORT} and {highest}")


def outgoing_from() -> int:
    """Where the kernel's range of outgoing ports begins."""
    try:
        start = int(OUTGOING_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return DEFAULT_OUTGOING_FROM
    # A machine that gives nearly everything to outgoing connections leaves no better choice.
    return start if start > LOWEST_PORT + ATTEMPTS else DEFAULT_OUTGOING_FROM
