"""Where a source database is, and how it is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Tls(StrEnum):
    """How much the connection's encryption proves. The words are libpq's."""

    DISABLE = "disable"  # none; in production for loopback only
    REQUIRE = "require"  # encrypted, with whoever answers; in production for loopback only
    VERIFY_CA = "verify-ca"  # the other side has a certificate of a known authority
    VERIFY_FULL = "verify-full"  # and the certificate names the host

    @property
    def is_verified(self) -> bool:
        """Whether it proves who the other side is."""
        return self in (Tls.VERIFY_CA, Tls.VERIFY_FULL)


@dataclass(frozen=True, slots=True)
class Server:
    """Where the database is, and who we are there. `password` and `ca` are references to secrets."""

    host: str
    port: int
    database: str
    user: str
    password: str = ""
    tls: Tls = Tls.VERIFY_FULL
    ca: str = ""
    allow_networks: Sequence[str] = ()
    connect_s: float = 10.0
    answer_s: float = 300.0

    @property
    def shown(self) -> str:
        """As operators read it."""
        return f"{self.host}:{self.port}/{self.database}"
