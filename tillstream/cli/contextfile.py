"""
The file of contexts: APIs by a name of one's own, and which of them is meant where nobody says.

    current = "bank"

    [contexts.bank]
    url = "https://till.bank.example"

People may write it; what they write beside these keys is refused, comments are not kept. It is replaced as a whole,
under a lock, and only its owner may read it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import ConfigError, NotFound
from tillstream.cli.url import checked_url

VARIABLE = "TILL_CONTEXTS"
MAX_BYTES = 1_048_576
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_KEYS = ("current", "contexts")
_HEAD = "# The APIs that `till` knows by name: see `till context --help`. Comments are not kept.\n"


@dataclass(frozen=True, slots=True)
class Contexts:
    """URLs by name, and the name of the current one; empty: none."""

    urls: Mapping[str, str] = field(default_factory=dict)
    current: str = ""

    def url_of(self, name: str) -> str:
        """
        The URL of the context.

        Raises:
            NotFound: there is none of this name.
        """
        if name not in self.urls:
            known = ", ".join(sorted(self.urls)) or "none yet"
            raise NotFound(f"there is no context {name!r}", hint=f"there are: {known}; see `till context add --help`")
        return self.urls[name]


Change = Callable[[Contexts], Contexts]
"""From what the file holds to what it shall hold."""


def path_of(environ: Mapping[str, str]) -> Path:
    """Where the file is, whether it is there or not."""
    if named := environ.get(VARIABLE):
        return Path(named).expanduser()
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "till" / "contexts.toml"


def read(path: Path) -> Contexts:
    """
    What the file holds; nothing where there is none.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise _wrong(path, f"has more than {MAX_BYTES} bytes")
        body = tomllib.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError) as exc:
        raise _wrong(path, f"cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    problems = list(_problems(body))
    if problems:
        raise _wrong(path, "\n  ".join(["is no file of contexts:", *problems]))
    return Contexts({name: each["url"] for name, each in body.get("contexts", {}).items()}, body.get("current", ""))


def changed(path: Path, change: Change) -> Contexts:
    """
    Replace the file by what `change` makes of it; nobody else of us changes it meanwhile, others see one or the other.

    Raises:
        ConfigError: it cannot be read or written. What `change` raises: nothing was changed.
    """
    real = Path(os.path.realpath(path))  # a link stays one
    try:
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(real.parent, os.O_RDONLY)
    except OSError as exc:
        raise _wrong(path, f"cannot be written: {exc.strerror}") from exc
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = read(real)
        after = change(before)
        if after != before:
            _replace(real, after)
    except OSError as exc:
        raise _wrong(path, f"cannot be written: {exc.strerror}") from exc
    finally:
        os.close(folder)
    return after


def _replace(path: Path, contexts: Contexts) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(_text(contexts))
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def name_problem(name: str) -> str:
    """Why this is no name of a context; empty if it is one."""
    return "" if _NAME.fullmatch(name) else "must be 1 to 64 letters, digits, `.`, `_` or `-`, and begin with one"


def _text(contexts: Contexts) -> str:
    # a URL and a name as JSON are strings of TOML, too: both were checked to be plain
    parts = [_HEAD, f"current = {json.dumps(contexts.current)}\n"] if contexts.current else [_HEAD]
    parts += [f"\n[contexts.{json.dumps(name)}]\nurl = {json.dumps(url)}\n" for name, url in contexts.urls.items()]
    return "".join(parts)


def _problems(body: Mapping[str, object]) -> Iterator[str]:
    yield from (f"{key}: is no key of it; there are current and contexts" for key in body if key not in _KEYS)
    tables = body.get("contexts", {})
    if not isinstance(tables, dict):
        yield "contexts: must be tables, such as [contexts.bank]"
        return
    for name, table in tables.items():
        if problem := name_problem(name):
            yield f"contexts.{name}: a name {problem}"
        elif not isinstance(table, dict) or set(table) != {"url"} or not isinstance(table["url"], str):
            yield f"contexts.{name}: must have one key, url, that is text"
        else:
            try:
                checked_url(table["url"], place=f"contexts.{name}.url")
            except ConfigError as exc:
                yield str(exc)
    current = body.get("current", "")
    if not isinstance(current, str) or (current and current not in tables):
        yield "current: must be the name of one of the contexts"


def _wrong(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path}: {problem}", hint=f"correct the file, or name another one with {VARIABLE}")
