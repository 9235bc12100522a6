"""
The embedded stack as `till up` runs it: Kafka, PostgreSQL, the topics and tables, and one worker of each role.

What it is made of comes from the settings; servers of one's own that they name are used and not started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from tillstream.config import Loaded, Role, Settings, all_settings, variable_of
from tillstream.embedded.home import Home
from tillstream.embedded.state import Endpoints
from tillstream.embedded.supervisor import StackOptions, status
from tillstream.embedded.worker import WorkerCommand
from tillstream.secret import allows

_FOUND = ("default", "running stack")  # origins that name no server of one's own


def endpoints(home: Path) -> Mapping[str, str]:
    """Where the running stack's Kafka and PostgreSQL are, by setting; empty when none runs."""
    state = status(Home(home))
    return {} if state is None else state.settings()


def options(loaded: Loaded) -> StackOptions:
    """The stack that these settings describe."""
    settings = loaded.settings
    kafka, postgres_dsn = own_servers(loaded)

    async def before_workers(found: Endpoints) -> None:
        from tillstream import wiring  # noqa: PLC0415  Faust is not needed to ask for a stack's state

        await wiring.prepare(at(settings, found))

    return StackOptions(
        home=Home(settings.home),
        workers=tuple(_worker(role, loaded) for role in Role),
        kafka=kafka,
        postgres_dsn=postgres_dsn,
        before_workers=before_workers,
    )


def own_servers(loaded: Loaded) -> tuple[str | None, str | None]:
    """Kafka and PostgreSQL of one's own, as somebody set them; None where the embedded one is meant."""
    settings, origins = loaded.settings, loaded.origins
    kafka = None if origins["kafka.bootstrap"] in _FOUND else settings.kafka.bootstrap
    postgres = None if origins["postgres.dsn"] in _FOUND else settings.postgres.dsn.get_secret_value()
    return kafka, postgres


def at(settings: Settings, found: Endpoints) -> Settings:
    """The same settings, for the servers of a running stack."""
    kafka = settings.kafka.model_copy(update={"bootstrap": found.kafka})
    postgres = settings.postgres.model_copy(update={"dsn": SecretStr(found.postgres_dsn)})
    return settings.model_copy(update={"kafka": kafka, "postgres": postgres})


def _worker(role: Role, loaded: Loaded) -> WorkerCommand:
    return WorkerCommand(
        name=role.value,
        # -P: a module of the working directory must not stand in for one of ours
        argv=(sys.executable, "-P", "-m", "tillstream", "worker", role.value),
        environment={**_environment(loaded), **_of_role(role, loaded)},
        directory=loaded.settings.home,
        role=role.value,
    )


def _of_role(role: Role, loaded: Loaded) -> dict[str, str]:
    """Sources are read by connector workers and tried by the API; stacks beside each other share no port."""
    secrets = _secrets(loaded) if role in (Role.CONNECTOR, Role.API) else {}
    free_port = {variable_of("http.api_port"): "0"} if loaded.origins["http.api_port"] in _FOUND else {}
    return {**secrets, **(free_port if role is Role.API else {})}


def _environment(loaded: Loaded) -> dict[str, str]:
    """Every setting that somebody made, as a variable; the supervisor adds the home and the addresses."""
    found: dict[str, str] = {}
    for setting in all_settings():
        if loaded.origins[setting.key] in _FOUND or setting.key == "home":
            continue
        value: object = loaded.settings
        for part in setting.key.split("."):
            value = getattr(value, part)
        found[setting.variable] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return found


def _secrets(loaded: Loaded) -> dict[str, str]:
    """The variables that connectors may refer to: no other worker gets them."""
    names = loaded.settings.secrets.names
    return {variable: value for variable, value in os.environ.items() if allows(names, variable)}
