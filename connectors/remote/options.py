"""What a connector wants of its server, apart from how it is done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from connectors.remote.pin import Pins


class Checksum(StrEnum):
    """What a file is whose checksum's file is not there."""

    REQUIRED = "required"  # a problem
    AWAIT = "await"  # not through yet, and a problem after a while
    OFF = "off"  # a file like any other


@dataclass(frozen=True, slots=True)
class Rules:
    """What a connector wants of its downloads."""

    folder: bytes
    checksum: Checksum
    sidecar_suffix: str
    grace_s: float
    staging_bytes: int


class AfterRead(StrEnum):
    """What becomes of a file that has been read."""

    LEAVE = "leave"
    MOVE = "move"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Account:
    """Where to log in, and as whom. The secrets are references."""

    host: str
    port: int
    username: str
    password: str
    private_key: str
    passphrase: str
    pins: Pins
    connect_s: float
    answer_s: float
