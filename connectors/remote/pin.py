"""
A server's host key, as an operator pins it: `SHA256:…` as `ssh-keygen -l` shows it, or a whole public key line.

A server that cannot prove a pinned key is refused before anything of ours is sent. There is no trust on first use: the
check tells the fingerprint, and an operator compares it with what the bank told by another way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")
_MD5 = re.compile(r"(?:MD5:)?(?:[0-9a-fA-F]{2}:){15}[0-9a-fA-F]{2}")
_SEPARATOR = re.compile(r"[,\n]")

# A server shows one key: of the first algorithm of our list that it has. Which kind a fingerprint is of, it does not
# tell, so each kind is asked for in turn until one matches.
KINDS: Sequence[Sequence[str]] = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
)


@dataclass(frozen=True, slots=True)
class Pins:
    """The fingerprints of keys that a server may prove, and the kinds to ask it for. Empty: none is pinned yet."""

    fingerprints: frozenset[str]
    kinds: Sequence[Sequence[str]] = KINDS

    @classmethod
    def parse(cls, text: str) -> Pins:
        """
        The pins of a configuration, several separated by commas or newlines, as while a key is being changed.

        Raises:
            ValueError: one of them is no pin.
        """
        fingerprints: set[str] = set()
        kinds: set[Sequence[str]] = set()
        for each in filter(None, (part.strip() for part in _SEPARATOR.split(text))):
            if _FINGERPRINT.fullmatch(each):
                fingerprints.add(each.rstrip("="))
                kinds.update(KINDS)
            else:
                found, kind = _public_key(each)
                fingerprints.add(found)
                kinds.add(kind)
        return cls(frozenset(fingerprints), tuple(kind for kind in KINDS if kind in kinds))

    def __bool__(self) -> bool:
        return bool(self.fingerprints)

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self.fingerprints

    def __str__(self) -> str:
        return " or ".join(sorted(self.fingerprints))


def _public_key(line: str) -> tuple[str, Sequence[str]]:
    """
    Fingerprint and kind of the key in a line of a `.pub`, an authorized_keys or a known_hosts file.

    Raises:
        ValueError: it has none, or one of a kind that proves nothing any more.
    """
    if _MD5.fullmatch(line):
        raise ValueError("an MD5 fingerprint proves nothing any more; give the one that begins with SHA256:")
    for algorithm, text in itertools.pairwise(line.split()):  # a known_hosts line begins with host names
        try:
            blob = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        name = algorithm.encode()
        if not blob.startswith(len(name).to_bytes(4, "big") + name):  # RFC 4253, section 6.6
            continue
        kind = next((kind for kind in KINDS if algorithm in kind), None)
        if kind is None:
            raise ValueError(f"a host key of the kind {algorithm} cannot be used; ask for an ssh-ed25519 one")
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}", kind
    raise ValueError("a host key is `SHA256:…` as `ssh-keygen -l` shows it, or a public key as `ssh-ed25519 AAAA…`")
