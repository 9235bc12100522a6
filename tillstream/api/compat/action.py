"""
What the seeds' families do with connectors: each a call of a service, in the words of `tillstream/control/dialect.py`.

Each change is logged here; what follows from it its worker logs, in seed 000's words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from connectors.spec import SourceSpec
from schemas.errors import ConfigError, NotFound
from tillstream.api.idempotency import Reserved
from tillstream.api.v1.connector import context_of, trying
from tillstream.api.v1.source_type import spec_of
from tillstream.api.world import World
from tillstream.config import Environment
from tillstream.control import connector as connectors
from tillstream.control import dialect, edit, request, run
from tillstream.control.connector import ConnectorStatus, ConnectorView, Label, Standing
from tillstream.control.dialect import Plan, Wanted
from tillstream.control.pin import pin
from tillstream.control.run import RunView
from tillstream.control.trial import Trial, try_out

logger = logging.getLogger(__name__)

_UNPLANNED = Plan()


@dataclass(frozen=True, slots=True)
class Listed:
    """Some connectors by number; `summary` counts those of every status, by its name in lower case, and in all."""

    connectors: list[ConnectorView]
    summary: Mapping[str, int]


async def found(world: World, wanted: str) -> ConnectorView:
    """
    The connector of this number, `conn_<number>`, name or id.

    Raises:
        NotFound: there is none.
    """
    return await connectors.find(world.pool, wanted)


async def listed(world: World, fits: Callable[[ConnectorView], bool], status: str | None) -> Listed:
    """Those that fit, and of them those that stand so; None for any."""
    views = [view for view in await connectors.list_connectors(world.pool) if fits(view)]
    views.sort(key=lambda view: view.number)
    standing = Counter(view.standing for view in views)
    return Listed(
        [view for view in views if status in (None, view.standing.value)],
        {"total": len(views), **{each.value.lower(): standing[each] for each in Standing}},
    )


def holds(text: str | None, *among: str) -> bool:
    """Whether one of these holds the text, in whatever case; None is in each."""
    return text is None or any(text.lower() in each.lower() for each in among)


def shown(world: World, view: ConnectorView) -> ConnectorView:
    """The connector as it may be told: without the secrets that an old configuration spells."""
    return connectors.shown(view, world.specs.get(view.kind))


async def made(world: World, name: str, wanted: Wanted, reserved: Reserved) -> ConnectorView:
    """
    A new connector, or the one that an earlier try of the request made; a worker starts it within seconds.

    Raises:
        ConfigError: everything that is wrong with it. Conflict: the name is taken.
    """
    if reserved.again:
        with contextlib.suppress(NotFound):
            return await connectors.find(world.pool, str(reserved.id))
    if wanted.kind not in world.specs:
        there = ", ".join(sorted(world.specs))
        raise ConfigError(f"connector {name!r} cannot be as it is described:\n  kind: must be one of {there}")
    spec = spec_of(world, wanted.kind)
    configuration = _options(world, spec, wanted.provider, wanted.configuration)
    label = Label(wanted.type or connectors.TYPES.get(spec.kind), wanted.provider)
    described = edit.Described(
        name, spec.kind, wanted.provider, ConnectorStatus.ACTIVE, configuration, wanted.plan.over(None)
    )
    view = await edit.create(
        world.pool, described, world.specs, label=label, secrets=world.store, identifier=reserved.id
    )
    _log("connector created", name)
    return await _pinned(world, view, spec)


async def changed(
    world: World,
    view: ConnectorView,
    *,
    name: str | None = None,
    status: ConnectorStatus | None = None,
    configuration: Mapping[str, Any] | None = None,
    plan: Plan = _UNPLANNED,
    expected: int | None = None,
) -> ConnectorView:
    """
    The connector, changed; what is not given stays as it is. A configuration is given whole. `expected` is the revision
    that the caller saw.

    Raises:
        ConfigError: everything that is wrong with it. Conflict: the name is taken. NotFound: it was deleted meanwhile.
    """
    spec = spec_of(world, view.kind)
    options = None if configuration is None else _options(world, spec, view.provider, configuration)

    def wish(before: edit.Described) -> edit.Described:
        return dataclasses.replace(
            before,
            name=before.name if name is None else name,
            status=status or before.status,
            configuration=before.configuration if options is None else options,
            schedule=plan.over(before.schedule),
        )

    done = await edit.change(world.pool, view.id, wish, world.specs, expected=expected, secrets=world.store)
    _log("connector changed", done.view.name)
    return done.view


def insist(told: Mapping[str, object], given: Mapping[str, object]) -> None:
    """
    Pass if what is given is what is told: a client sent an answer back.

    Raises:
        ConfigError: something that never changes would.
    """
    others = [key for key, value in given.items() if value is not None and value != told[key]]
    if others:
        problems = [f"{key}: stays {told[key]!r}; make another connector" for key in others]
        raise ConfigError("\n  ".join(["the connector cannot be as it is described:", *problems]))


async def deleted(world: World, view: ConnectorView, *, expected: int | None = None) -> None:
    """
    Let go of it: its worker stops it within seconds, its name is free, its payments stay.

    Raises:
        NotFound: it was deleted before.
    """
    await connectors.delete(world.pool, view, expected=expected)
    _log("connector deleted", view.name)


async def paused(world: World, view: ConnectorView, *, note: str = "", by: str = "") -> ConnectorView:
    """The connector, paused: it runs by no schedule, and not when it is asked."""
    done = await edit.pause(world.pool, view.id, note=note, by=by)
    _log("connector paused", view.name)
    return done


async def resumed(world: World, view: ConnectorView, *, by: str = "") -> ConnectorView:
    """The connector, active."""
    done = await edit.resume(world.pool, view.id, by=by)
    _log("connector resumed", view.name)
    return done


async def tried(world: World, view: ConnectorView, reserved: Reserved, *, by: str = "") -> Trial:
    """
    How a TEST run went: the source is tried as it is configured, from here, and nothing is published.

    Raises:
        NotFound: the connector was deleted meanwhile. Refusal: too many are being tried.
    """
    view = await _pinned(world, view, spec_of(world, view.kind))
    async with trying(world):
        context = context_of(world, view.id, view.name)
        return await try_out(
            world.pool, view, world.specs, context, triggered_by=by, redact=world.redact, run_id=reserved.id
        )


async def asked(
    world: World,
    view: ConnectorView,
    reserved: Reserved,
    *,
    since: date | None = None,
    until: date | None = None,
    force: bool = False,
    by: str = "",
) -> RunView:
    """
    A run that somebody wants, or the one that an earlier try of the request asked for; a worker begins it within
    seconds.

    Raises:
        Conflict: the connector is paused. ConfigError: its source knows no days, or they are the wrong way round.
    """
    if reserved.again:
        with contextlib.suppress(NotFound):
            return await run.find_run(world.pool, str(reserved.id))
    spec = spec_of(world, view.kind)
    view = await _pinned(world, view, spec)
    run_id = await request.ask(
        world.pool,
        view,
        spec,
        since=since,
        until=until,
        force=force,
        requested_by=by or request.MANUAL,
        run_id=reserved.id,
    )
    _log("run asked for", view.name)
    return await run.find_run(world.pool, str(run_id))


def _options(world: World, spec: SourceSpec, provider: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options = dialect.configured(spec, provider, given)
    if world.settings.environment is Environment.PRODUCTION:
        return options
    return dialect.reaching(spec, options)


async def _pinned(world: World, view: ConnectorView, spec: SourceSpec) -> ConnectorView:
    return await pin(world.pool, view, spec, context_of(world, view.id, view.name))


def _log(event: str, name: str) -> None:
    logger.info(event, extra={"facts": {"component": "api", "connector": name}})
