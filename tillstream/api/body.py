"""
What a body may be: a JSON object of at most 1 MiB and 64 levels, whose texts PostgreSQL can hold.

NUL and lone surrogates are refused wherever they stand; so are numbers that JSON does not have.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tillstream.api.problem import Refusal

MAX_BYTES = 1_048_576
MAX_DEPTH = 64
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


# what JSON holds may be anything
def parse(raw: bytes) -> dict[str, Any]:
    """
    The object that a body holds.

    Raises:
        Refusal: `invalid`; it is no JSON object, or one that cannot be stored.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError:
        raise Refusal("invalid", "the body is no text in UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as exc:
        raise Refusal("invalid", f"the body is no JSON: {str(exc)[:100]}") from None
    if not isinstance(value, dict):
        raise Refusal("invalid", f"the body must be a JSON object; got {type(value).__name__}")
    _look_through(value)
    return value


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text."""
    return _FORBIDDEN.search(text) is None


def _look_through(value: object) -> None:
    level: list[object] = [value]
    depth = 0
    while level:
        depth += 1
        below: list[object] = []
        for each in level:
            if isinstance(each, str) and not is_storable(each):
                raise Refusal("invalid", "the body holds NUL or half of a surrogate pair, which no text may")
            if isinstance(each, dict):
                below += [*each.keys(), *each.values()]
            elif isinstance(each, list):
                below += each
            else:
                continue
            if depth > MAX_DEPTH:
                raise _too_deep()
        level = below


def _too_deep() -> Refusal:
    return Refusal("invalid", f"the body has more than {MAX_DEPTH} levels")


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
