"""
What goes wrong between a command and the API: the API refuses, nobody answers, or what answers is not the API.

None of them tells more than the other side said, and none of what it said is believed to be fit for a terminal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import Disposition, TillError

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_MOST_CHARS = 4_000  # of one text of a problem
_MOST_FIELDS = 100
_LONGEST_S = 300.0  # nobody is waited for longer, whatever is asked
NO_ROUTE = "there is no such route"  # as the API tells a route that it has not


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field; the empty field is the whole."""

    field: str
    message: str


class ApiProblem(TillError):
    """
    The API did not do it, and says why: `code`, `hint` and `retryable` are its own, `status` is HTTP's.

    `fields` are what is wrong with what was sent, where it told them one by one.
    """

    disposition = Disposition.REJECT

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        hint: str = "",
        is_retryable: bool = False,
        retry_after_s: float = 0.0,
        fields: Sequence[FieldProblem] = (),
    ) -> None:
        self.status, self.code, self.is_retryable = status, code, is_retryable
        self.retry_after_s = retry_after_s
        self.fields = tuple(fields)
        super().__init__(message, hint=hint)

    @property
    def retryable(self) -> bool:
        """Whether the API thinks that waiting helps."""
        return self.is_retryable


class ApiUnavailable(TillError):
    """
    Nobody answers where the API should be, or the connection was lost. Disposition: retry.

    `comes_back`: something starts it again. `unsent`: nothing of the request can have reached it.
    """

    code = "api_unavailable"
    disposition = Disposition.RETRY
    hint = "start a stack with `till up`, or the API alone with `till worker api`; or name one with --api or --context"

    def __init__(self, message: str, *, hint: str | None = None, comes_back: bool = False, unsent: bool = True) -> None:
        self.comes_back, self.unsent = comes_back, unsent
        super().__init__(message, hint=hint)


class ApiForeign(TillError):
    """What answers is not this API, or one of another version. Disposition: pause."""

    code = "api_foreign"
    disposition = Disposition.PAUSE
    hint = "see which server is meant: `till context show`"


# what a server sends may be anything
def problem_of(status: int, body: Any, retry_after: str | None) -> ApiProblem | None:
    """The problem that an answer tells; None if it tells none as RFC 9457 and this API have it."""
    if not isinstance(body, Mapping) or not isinstance(body.get("detail"), str):
        return None
    code = body.get("code")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    fields = _fields(body.get("errors"))
    detail = body["detail"][:_MOST_CHARS]
    return ApiProblem(
        "\n  ".join([detail, *map(_line, fields)]) if _are_beside(code, fields) else detail,
        status=status,
        code=code,
        hint=_text(body.get("hint")),
        is_retryable=body.get("retryable") is True,
        retry_after_s=_seconds(retry_after),
        fields=fields,
    )


def _are_beside(code: str, fields: Sequence[FieldProblem]) -> bool:
    """Whether the detail leaves the fields out: a body's first three are in it."""
    return code == "config" or len(fields) > 3


def _line(each: FieldProblem) -> str:
    return f"{each.field}: {each.message}" if each.field else each.message


# as above
def _fields(told: Any) -> list[FieldProblem]:
    if not isinstance(told, list):
        return []
    return [
        FieldProblem(_text(each.get("field")), _text(each.get("message")))
        for each in told[:_MOST_FIELDS]
        if isinstance(each, Mapping)
    ]


# as above
def _text(value: Any) -> str:
    return value[:_MOST_CHARS] if isinstance(value, str) else ""


def _seconds(retry_after: str | None) -> float:
    try:
        wait_s = float(retry_after or 0)
    except ValueError:
        return 0.0  # a date: nobody here sends one
    return min(max(0.0, wait_s), _LONGEST_S) if math.isfinite(wait_s) else 0.0
