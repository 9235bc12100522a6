"""What the seeds' families share: bodies read as JSON whatever they are called, instants as they print them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError

from tillstream.api.body import parse

Given = TypeVar("Given", bound=BaseModel)


class Body(BaseModel):
    """
    What a client of a seed sends. What answers have beside is let through and not heeded, so that an answer may be
    sent back changed; anything else that is not known is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def milliseconds(at: datetime) -> str:
    """As the seeds print instants: `2025-10-03T14:23:11.488Z`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


Instant = Annotated[datetime, PlainSerializer(milliseconds, return_type=str)]


def given(model: type[Given], *, beside: frozenset[str] = frozenset()) -> Callable[[Request], Awaitable[Given]]:
    """
    A dependency: the body as the model has it; an empty body is an empty object. `beside` is not heeded.

    Whatever it is called, it is JSON: `curl -d` says that it is a form.

    Raises:
        Refusal: it is no JSON object. RequestValidationError: it is another one than the model's.
    """

    async def read(request: Request) -> Given:
        raw = await request.body()
        sent = {key: value for key, value in (parse(raw) if raw.strip() else {}).items() if key not in beside}
        try:
            return model.model_validate(sent)
        except ValidationError as exc:
            errors = [{**each, "loc": ("body", *each["loc"])} for each in exc.errors(include_url=False)]
            raise RequestValidationError(errors) from None

    return read


async def whole(request: Request) -> dict[str, Any]:
    """
    A dependency: the body as it is, any JSON object; an empty body is an empty one.

    Raises:
        Refusal: it is no JSON object.
    """
    raw = await request.body()
    return parse(raw) if raw.strip() else {}


def takes(model: type[BaseModel] | None = None) -> dict[str, Any]:
    """What a route's description says of its body."""
    schema = {"type": "object"} if model is None else model.model_json_schema()
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": False, "content": content}}
