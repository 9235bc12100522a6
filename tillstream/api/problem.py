"""
What went wrong, as RFC 9457 tells it: `application/problem+json` with our code, hint and whether trying again helps.

Which status an error has stands in one table, by its code. Nothing internal leaves: an unexpected error is told by its
request's id alone, and secrets are taken out of every text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from schemas.errors import ConfigError, Disposition, TillError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2  # where nobody says how long: a server that starts takes seconds

STATUS: Mapping[str, int] = {
    # of this API alone
    "bad_request": 400,
    "forbidden": 403,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "idempotency_in_progress": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid": 422,
    "idempotency_key_reused": 422,
    "precondition_required": 428,
    "too_many_requests": 429,
    # of the services
    "not_found": 404,
    "conflict": 409,
    "precondition_failed": 412,
    "config": 422,
    "timed_out": 504,
    "sink_unavailable": 503,
    "sink_misconfigured": 503,
    "sink_rewound": 503,
    "sink_refused": 422,
    "sink_unclear": 500,
    "event_id_reused": 409,
    "broker_unavailable": 503,
    "dead_letter_unavailable": 503,
    "source_unavailable": 502,
    "source_throttled": 503,
    "source_changed": 502,
    "source_broken": 502,
    "source_misconfigured": 422,
    "source_unauthorised": 422,
    "changes_lost": 409,
    "fenced": 409,
    "stack": 503,
    "stack_busy": 409,
    "internal": 500,
}
_BY_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_PLACES = ("body", "query", "path", "header", "cookie")
_FIELD = re.compile(r"[A-Za-z_][\w.\-\[\]]*", re.ASCII)


class FieldProblem(BaseModel):
    """What is wrong with one field; the empty field is the whole."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request was not done (RFC 9457). `code` is stable; `retryable`: the same request may work later."""

    type: str = Field(description="`urn:tillstream:problem:` and the code.")
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    retryable: bool = False
    field: str | None = Field(default=None, description="The only field that is wrong, where it is one.")
    instance: str = Field(description="`urn:request:` and the request's id, as in the header X-Request-ID.")
    errors: list[FieldProblem] | None = None


# What every route may answer beside its own.
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"description": "What was sent cannot be.", "content": _CONTENT},
    "4XX": {"description": "It was not done; nothing was changed.", "content": _CONTENT},
    "5XX": {"description": "It could not be done now.", "content": _CONTENT},
}


class Refusal(TillError):
    """The API itself refuses a request. `code` is one of the table's; `field` names what is wrong."""

    disposition = Disposition.REJECT

    def __init__(
        self, code: str, message: str, *, hint: str = "", field: str | None = None, retry_after_s: float = 0.0
    ) -> None:
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s
        super().__init__(message, hint=hint)

    @property
    def retryable(self) -> bool:
        """Only where waiting is what is asked for."""
        return self.retry_after_s > 0


def status_of(error: TillError) -> int:
    """The HTTP status of an error; a record's own reasons are 422, what nobody knows is 500."""
    unknown = 422 if error.disposition is Disposition.REJECT else 500
    return STATUS.get(error.code, unknown)


def answer_of(error: TillError, *, request_id: str, redact: Callable[[str], str]) -> JSONResponse:
    """The answer that tells of an error of ours; one whose status is 500 is told by its code alone."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal(request_id=request_id)
    detail, errors = _fields(error)
    field = getattr(error, "field", None) or (errors[0].field or None if errors and len(errors) == 1 else None)
    problem = _problem(
        status,
        error.code,
        redact(detail),
        request_id=request_id,
        hint=redact(error.hint),
        retryable=error.retryable,
        field=field,
        errors=[FieldProblem(field=each.field, message=redact(each.message)) for each in errors] or None,
    )
    wait_s = error.retry_after_s or (RETRY_AFTER_S if status == HTTPStatus.SERVICE_UNAVAILABLE else 0)
    return _response(problem, {"Retry-After": str(math.ceil(wait_s))} if wait_s else {})


def of_validation(error: RequestValidationError, *, request_id: str, redact: Callable[[str], str]) -> JSONResponse:
    """422, with every field that is wrong. The values themselves are not told."""
    errors = [
        FieldProblem(field=_path(each["loc"]), message=redact(str(each["msg"]).removeprefix("Value error, ")))
        for each in error.errors()
    ]
    detail = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in errors[:3])
    field = errors[0].field or None if len(errors) == 1 else None
    hint = "see /openapi.json for what this route takes"
    return _response(_problem(422, "invalid", detail, request_id=request_id, hint=hint, field=field, errors=errors), {})


def of_http(error: HTTPException, *, request_id: str) -> JSONResponse:
    """What the framework refuses: no such route, no such method."""
    code = _BY_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
    hint = "see /openapi.json for the routes; a / in a name is sent as %2F" if error.status_code in (404, 405) else ""
    detail = {404: "there is no such route", 405: "this route does not take this method"}.get(
        error.status_code, HTTPStatus(error.status_code).phrase.lower()
    )
    problem = _problem(error.status_code, code, detail, request_id=request_id, hint=hint)
    return _response(problem, dict(error.headers or {}))


def internal(*, request_id: str) -> JSONResponse:
    """500: a bug. The log has the traceback under the request's id."""
    hint = f"this is a bug; the log of the API tells more under request {request_id}"
    return _response(_problem(500, "internal", "an unexpected error", request_id=request_id, hint=hint), {})


def _problem(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str,
    hint: str = "",
    retryable: bool = False,
    field: str | None = None,
    errors: list[FieldProblem] | None = None,
) -> Problem:
    return Problem(
        type=f"urn:tillstream:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        retryable=retryable,
        field=field,
        instance=f"urn:request:{request_id}",
        errors=errors,
    )


def _response(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    body = problem.model_dump(exclude_none=True)
    return JSONResponse(body, status_code=problem.status, headers=dict(headers), media_type=MEDIA_TYPE)


def _fields(error: TillError) -> tuple[str, list[FieldProblem]]:
    """A configuration error's first line, and its others as fields."""
    first, *rest = str(error).split("\n  ")
    if not isinstance(error, ConfigError) or not rest:
        return str(error), []
    found = []
    for line in rest:
        field, colon, message = line.partition(": ")
        known = bool(colon) and _FIELD.fullmatch(field) is not None
        found.append(FieldProblem(field=field if known else "", message=message if known else line))
    return first.removesuffix(":"), found


def _path(loc: Sequence[int | str]) -> str:
    parts = list(loc[1:] if loc and loc[0] in _PLACES else loc)
    return ".".join(str(part) for part in parts if not isinstance(part, int) or len(parts) > 1)
