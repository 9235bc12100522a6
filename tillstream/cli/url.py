"""What an API's address may be: http or https, a host, perhaps a port and a path; never a secret."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from schemas.errors import ConfigError

_SUFFIX = "/api/v1"
_MOST_CHARS = 2_000


def checked_url(text: str, *, place: str) -> str:
    """
    The address without a slash at its end, and without `/api/v1`, which is ours to add.

    Raises:
        ConfigError: it is none. A text that may hold a secret is not told again.
    """
    if not text or len(text) > _MOST_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{place}: must be the address of an API", hint="such as http://127.0.0.1:8080")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ConfigError(
            f"{place}: holds a user or a password, which an address must not",
            hint="leave it out: addresses are shown, logged and kept in files; the API has no login yet",
        )
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ConfigError(f"{place}: must end before any `?` or `#`", hint="such as https://till.example")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigError(f"{place}: must be an http or https address", hint="such as http://127.0.0.1:8080")
    return text.rstrip("/").removesuffix(_SUFFIX).rstrip("/")


def is_plain(url: str) -> bool:
    """Whether what is sent there can be read on the way: http to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
