"""
What every command needs: the settings in force, the log, connections that are closed again, one way to end.

A stack that runs in the home tells its own endpoints, so commands find it without being told.
"""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from schemas.errors import BrokerUnavailable, SinkUnavailable, StackError, TillError
from tillstream.cli.exit import ExitStatus
from tillstream.cli.output import note

if TYPE_CHECKING:
    from schemas.topic import Topics
    from streams.publisher import Producer
    from tillstream.config import Loaded, Settings

Result = TypeVar("Result")


@dataclass(slots=True)
class Flags:
    """The options of `till` itself, as given."""

    config: Path | None = None
    home: Path | None = None
    api: str | None = None
    context: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    verbose: bool = False


FLAGS = Flags()
_LOADED: list[Loaded] = []  # of a command that uses servers and starts none: `explained` tells an error of theirs by it


def invocation() -> str:
    """`till` with the flags that say where it works, as a shell takes it: for commands that are told."""
    given = (("--config", FLAGS.config), ("--home", FLAGS.home), ("--api", FLAGS.api), ("--context", FLAGS.context))
    return " ".join(["till", *(f"{flag} {shlex.quote(str(value))}" for flag, value in given if value is not None)])


def load() -> Loaded:
    """
    The settings with their origins; the log is configured from them.

    Raises:
        ConfigError: all that is wrong, at once.
    """
    from tillstream import config, logs
    from tillstream.redaction import process_redactor
    from tillstream.stack import endpoints

    chosen = dict(FLAGS.settings)
    if FLAGS.home is not None:
        chosen["home"] = str(FLAGS.home)
    home = config.load(chosen, file=FLAGS.config).settings.home
    loaded = config.load(chosen, file=FLAGS.config, stack=endpoints(home))
    settings = loaded.settings
    level = "debug" if FLAGS.verbose else settings.log.level
    redactor = process_redactor()
    redactor.register(settings.secret_texts())
    logs.configure(level=level, format_=settings.log.format, redactor=redactor)
    return loaded


def explained(error: TillError) -> TillError:
    """`error`; or, where nobody named the servers that do not answer and no stack runs, what to do about that."""
    setting = {SinkUnavailable: "postgres.dsn", BrokerUnavailable: "kafka.bootstrap"}.get(type(error))
    if setting is None or not _LOADED or _LOADED[0].origins[setting] != "default":
        return error
    return StackError(
        f"no stack runs in {_LOADED[0].settings.home}",
        hint="start it with `till up`, or name servers with TILL_KAFKA_BOOTSTRAP / TILL_POSTGRES_DSN",
    )


def settings() -> Settings:
    """The settings in force, for a command that prints data: its log tells warnings only."""
    return loaded().settings


def loaded() -> Loaded:
    """As `settings`, with their origins."""
    found = load()
    _LOADED[:] = [found]
    quieten()
    return found


def quieten() -> None:
    """Log our warnings only, unless the user wants to hear everything: what a library meets, our errors tell."""
    if not FLAGS.verbose:
        import logging

        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@contextlib.asynccontextmanager
async def pool(chosen: Settings) -> AsyncIterator[Any]:  # asyncpg ships no types
    """
    A small pool of connections to the migrated database.

    Raises:
        SinkError: it does not answer, or refuses us.
    """
    from sinks.pool import close_pool, open_pool

    opened = await open_pool(chosen.postgres.dsn.get_secret_value(), size=2, application="till-cli", durable=False)
    try:
        yield opened
    finally:
        await close_pool(opened)


@contextlib.asynccontextmanager
async def producer(chosen: Settings) -> AsyncIterator[tuple[Producer, Topics]]:
    """A producer and the topic table; opening needs no broker."""
    from streams.publisher import Producer
    from tillstream.wiring import topics_of

    async with Producer(chosen.kafka.bootstrap) as opened:
        yield opened, topics_of(chosen)


def run(work: Coroutine[Any, Any, Result], *, left: str = "interrupted") -> Result:
    """Run a command's coroutine to its end; Ctrl-C ends it with its own status, and `left` is said."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        note(left)
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
