"""Addresses on the web: which may be asked at all, and which two belong together."""

from __future__ import annotations

from collections.abc import Collection

from yarl import URL

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHOWN = 200


def parse(text: str) -> URL:
    """
    The absolute address that `text` spells: http or https, a host, no user and no password.

    Raises:
        ValueError: it is none; the text says why, without a password.
    """
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        raise ValueError("is no address; one reads like https://api.example.com/v1") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError("an address begins with https:// or http://")
    if not url.host or not port:
        raise ValueError("the address names no host")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("an address holds no user and no password; give them as credentials")
    return url.with_fragment(None)


def same_origin(one: URL, other: URL) -> bool:
    """Whether what one may be told, the other may be told too."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def is_downgrade(before: URL, after: URL) -> bool:
    """Whether the way leads out of TLS."""
    return before.scheme == "https" and after.scheme != "https"


def without(url: URL, names: Collection[str]) -> URL:
    """The same address without these parameters, such as one that holds a key."""
    if not any(name in url.query for name in names):
        return url
    return url.with_query([(name, value) for name, value in url.query.items() if name not in names])


def shown(url: URL) -> str:
    """Scheme, host and path, for a message: parameters may hold what is nobody's business."""
    return str(url.with_query(None))[:_SHOWN]
