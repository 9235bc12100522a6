"""`till source`: the kinds of source there are, and whether one works."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConfigError, NotFound
from tillstream.cli import complete, context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.file import documents_of
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from connectors.source import CheckStep
    from connectors.spec import ConnectorConfig, SourceSpec

group = typer.Typer(help="Kinds of source, and whether one works.", no_args_is_help=True)


@group.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """List the kinds of source, plugins too."""
    from connectors.registry import specs

    known = specs()
    found, broken = [], []
    for kind in sorted(known):
        try:
            found.append(known[kind])
        except ConfigError as exc:  # a plugin that cannot be imported hides no other
            broken.append(f"{exc}; {exc.hint}")
    if output is not Output.TABLE:
        print_data(output, [_summary(spec) for spec in found])
    else:
        rows = [(spec.kind, spec.summary, spec.resumes_from, spec.takes_dates) for spec in found]
        print_table(("kind", "reads", "resumes from", "days"), rows)
    for each in broken:
        note(f"warning: {each}")


@group.command("show")
def show(
    kind: Annotated[str, typer.Argument(help="The kind of source.", autocompletion=complete.kinds)],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a kind of source offers: its options, their bounds and defaults."""
    from tillstream.docs_source import plain

    spec = spec_of(kind)
    options = _options(spec)
    if output is not Output.TABLE:
        print_data(output, {**_summary(spec), "options": options, "example": dict(spec.example), "notes": spec.notes})
        return
    print_fields(list(_summary(spec).items()))
    rows = [(each["key"], each["value"], each["default"], each["description"]) for each in options]
    note("")
    print_table(("key", "value", "default", "what it is"), rows)
    if spec.notes:
        note(f"\n{plain(spec.notes).strip()}")


@group.command("check")
def check(
    connector: Annotated[
        str | None, typer.Argument(help="A connector's name, id or number.", autocompletion=complete.connectors)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="`connector.yaml`; its connectors need not exist."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a source is given to answer.", min=0.1)] = 60.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Try a source, step by step, from this machine; nothing is changed and nothing published.

    Exits with 1 if a step failed. A secret is looked up here, as a worker here would.
    """
    if (connector is None) == (file is None):
        raise typer.BadParameter("name a connector or a file, one of them", param_hint="connector")
    tried = context.run(_checked_file(file, timeout) if file is not None else _checked(connector or "", timeout))
    if output is not Output.TABLE:
        each_step = [{"connector": name, **asdict(step)} for name, steps in tried for step in steps]
        tests = [{"connector": name, "ok": _is_well(steps), "steps": steps} for name, steps in tried]
        print_data(output, tests, rows=each_step)
    else:
        rows = [
            (name, "ok" if step.ok else "failed", step.name, f"{step.duration_s:.3f} s", _detail(step))
            for name, steps in tried
            for step in steps
        ]
        print_table(("connector", "", "step", "took", "detail"), rows)
    if not all(_is_well(steps) for _, steps in tried):
        raise typer.Exit(ExitStatus.FAILED)


def spec_of(kind: str) -> SourceSpec:
    """
    The kind of source of this name.

    Raises:
        NotFound: there is none. ConfigError: it is a plugin that cannot be imported.
    """
    from connectors.registry import specs

    known = specs()
    if kind not in known:
        raise NotFound(f"there is no source of kind {kind!r}", hint=f"there are: {', '.join(sorted(known))}")
    return known[kind]


def _summary(spec: SourceSpec) -> dict[str, object]:
    return {
        "kind": spec.kind,
        "summary": spec.summary,
        "resumes_from": spec.resumes_from,
        "takes_dates": spec.takes_dates,
    }


def _options(spec: SourceSpec) -> list[dict[str, Any]]:
    """Its options: its own, those it shares with its like, those that every connector has."""
    from connectors.spec import ConnectorConfig
    from tillstream.docs_source import words

    fields = spec.config.model_fields
    own = [name for name in fields if name in spec.config.__annotations__]
    shared = [name for name in fields if name in ConnectorConfig.model_fields]
    names = [*own, *(name for name in fields if name not in {*own, *shared}), *shared]
    return [
        {
            "key": name,
            "value": words(fields[name]).replace("\u202f", ""),  # a terminal gets nothing that is not plain
            "default": _default(fields[name]),
            "description": fields[name].description or "",
        }
        for name in names
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value in ("", (), [], {}, None) else str(getattr(value, "value", value))


async def _checked(wanted: str, timeout_s: float) -> list[tuple[str, Sequence[CheckStep]]]:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
    spec = spec_of(view.kind)
    config = connectors.checked(spec, view.configuration, name=view.name, provider=view.provider)
    return [(view.name, await _tried(spec, config, view.name, view.id, timeout_s))]


async def _checked_file(file: Path, timeout_s: float) -> list[tuple[str, Sequence[CheckStep]]]:
    from uuid import uuid4

    from tillstream.control import connector as connectors

    tried = []
    for each in documents_of([file]):
        spec, provider = spec_of(each.kind), each.provider or each.name
        config = connectors.checked(spec, each.configuration, name=each.name, provider=provider)
        tried.append((each.name, await _tried(spec, config, each.name, uuid4(), timeout_s)))
    return tried


async def _tried(
    spec: SourceSpec,
    config: ConnectorConfig,
    name: str,
    identifier: Any,  # a UUID
    timeout_s: float,
) -> Sequence[CheckStep]:
    from connectors.adapter import Adapters
    from connectors.clock import SystemClock
    from connectors.context import SourceContext
    from tillstream.config import Environment
    from tillstream.control.check import check as tried
    from tillstream.secret import worker_secrets

    settings = context.settings()
    world = SourceContext(
        connector_id=identifier,
        connector=name,
        clock=SystemClock(),
        secrets=worker_secrets(settings),
        production=settings.environment is Environment.PRODUCTION,
        adapters=Adapters(settings.connector.modules),
    )
    return await tried(spec, config, world, within_s=timeout_s)


def _is_well(steps: Sequence[CheckStep]) -> bool:
    return all(step.ok for step in steps)


def _detail(step: CheckStep) -> str:
    from tillstream.redaction import process_redactor

    told = step.detail if step.ok or not step.hint else f"{step.detail}; {step.hint}"
    return process_redactor().redact(told)
