"""
Which API commands ask. The nearest word wins: a flag (`--api`, `--context`, `--home`), a variable (`TILL_API_URL`,
`TILL_CONTEXT`, `TILL_HOME`), the current context of the file, the stack of the home, the address in the settings.

A stack's API has another port each time it starts, so its address is looked up again whenever it is lost.
"""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError
from tillstream.cli import context, contextfile
from tillstream.cli.output import note
from tillstream.cli.problem import ApiUnavailable
from tillstream.cli.url import checked_url, is_plain

URL_VARIABLE = "TILL_API_URL"
NAME_VARIABLE = "TILL_CONTEXT"
_STACK = "`till status` tells how its processes fare; with `till up` one may just be starting"
_START = "start it with `till up`, or name another API with --api or --context"


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where an API is. `origin` says who said so, `hint` what to do if nobody answers there.

    `comes_back`: something starts it again when it dies, so it is worth waiting for.
    """

    url: str
    origin: str
    hint: str = "is the API up, and is this its address? `till context show` tells which is meant, and why"
    comes_back: bool = False


Find = Callable[[], Address]
"""The address as it is now. Raises ConfigError, NotFound; ApiUnavailable: it is known that none is there."""


def finder() -> Find:
    """Tells the address, each time anew; who decides is decided once."""
    if (named := _named()) is not None:
        if is_plain(named.url):
            note(f"warning: {named.url} is neither https nor this machine: what is sent can be read on the way")
        return lambda: named
    loaded = context.loaded()
    settings = loaded.settings
    home, host, port = settings.home, settings.http.api_host, settings.http.api_port
    is_chosen = _home_is_named() and loaded.origins["http.api_port"] in ("default", "running stack")

    def find() -> Address:
        comes_back = _runs(home)
        announced = _announced(home / "run" / "api.json")
        if announced is not None:
            return Address(announced, f"the stack of {home}", hint=_START, comes_back=comes_back)
        if comes_back:
            raise ApiUnavailable(f"the API of the stack in {home} is not up", hint=_STACK, comes_back=True)
        if port == 0 or is_chosen:
            # the usual port may be another stack's: who names a home means no other
            raise ApiUnavailable(f"no API runs in {home}", hint=_START)
        name = f"[{host}]" if ":" in host else host
        return Address(f"http://{name}:{port}", "http.api_host and http.api_port of the settings", hint=_START)

    return find


def _named() -> Address | None:
    """The API that somebody named; None: that of the home, or of the settings."""
    flags = context.FLAGS
    if flags.api is not None and flags.context is not None:
        raise ConfigError("--api and --context name two APIs", hint="give one of them")
    if flags.api is not None:
        return Address(checked_url(flags.api, place="--api"), "--api")
    path = contextfile.path_of(os.environ)
    if flags.context is not None:
        return _of_context(path, flags.context, "--context")
    if flags.home is not None or "home" in flags.settings:
        return None
    if url := os.environ.get(URL_VARIABLE):
        return Address(checked_url(url, place=URL_VARIABLE), URL_VARIABLE)
    if name := os.environ.get(NAME_VARIABLE):
        return _of_context(path, name, NAME_VARIABLE)
    if _home_is_named():
        return None
    found = contextfile.read(path)
    return _of_context(path, found.current, "current") if found.current else None


def _of_context(path: Path, name: str, how: str) -> Address:
    url = contextfile.read(path).url_of(name)
    return Address(checked_url(url, place=f"{path}: contexts.{name}.url"), f"context {name} ({how})")


def _home_is_named() -> bool:
    flags = context.FLAGS
    return flags.home is not None or "home" in flags.settings or bool(os.environ.get("TILL_HOME"))


def _announced(file: Path) -> str | None:
    """What a running API tells of itself; None where none does, or not to us."""
    try:
        return checked_url(json.loads(file.read_text(encoding="utf-8"))["url"], place=str(file))
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None


def _runs(home: Path) -> bool:
    from tillstream.embedded import supervisor
    from tillstream.embedded.home import Home

    return supervisor.status(Home(home)) is not None
