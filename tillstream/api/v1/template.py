"""Templates: connectors for known providers, filled in but for what only an operator knows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.shape import Model, Page
from tillstream.control import template

router = APIRouter(prefix="/api/v1/templates", tags=["templates"], responses=PROBLEMS)


class PlaceholderShape(Model):
    """An option of the configuration that must be given; `example` shows its form."""

    field: str
    description: str
    # any JSON value
    example: Any


class TemplateShape(Model):
    """A connector that is to be filled in: `configuration` has no placeholder's option."""

    name: str
    summary: str
    kind: str
    provider: str = Field(description="Empty: yours to choose.")
    # a source's own options
    configuration: dict[str, Any]
    placeholders: list[PlaceholderShape]


@router.get("")
async def list_templates() -> Page[TemplateShape]:
    """Every template, by name."""
    return Page(data=[TemplateShape.of(each) for each in template.templates().values()])


@router.get("/{name}")
async def show_template(name: str) -> TemplateShape:
    """One template. `POST /connectors` with its name and the placeholders' options makes a connector of it."""
    return TemplateShape.of(template.find(name))
