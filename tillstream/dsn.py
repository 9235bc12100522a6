"""What a connection string hides, and how it is shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tillstream.redaction import MASK

_SECRET_QUERY = frozenset({"password", "sslpassword", "passfile"})


def mask_url(url: str) -> str:
    """`url` without its password; all of it masked where it does not parse."""
    try:
        parts = urlsplit(url)
        query = [
            (name, MASK if name in _SECRET_QUERY else value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
    except ValueError:
        return MASK
    if not parts.scheme or "@" in parts.path:
        return MASK
    user, at, hosts = parts.netloc.rpartition("@")
    masked = f"{user.partition(':')[0]}:{MASK}" if ":" in user else user
    tail = "?" + urlencode(query, safe="/*:") if query else ""
    return f"{parts.scheme}://{masked}{at}{hosts}{parts.path}{tail}"


def secrets_of(url: str) -> tuple[str, ...]:
    """The secret parts of a connection string, as spelled and decoded; all of it where it does not parse."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query)
    except ValueError:
        return (url,)
    found = [value for name, value in query if name in _SECRET_QUERY]
    user, _, _ = parts.netloc.rpartition("@")
    if ":" in user:
        found.append(user.partition(":")[2])
    if "@" in parts.path:
        found.append(url)
    return tuple(dict.fromkeys(item for text in found for item in (text, unquote(text)) if item))
