"""
Secrets that are given with a configuration: written once, below the workers' folder of secrets, and never shown again.

A configuration holds `${file:CONNECTOR/FIELD-VERSION}` in their place. A file is there before a configuration names it,
so that a crash leaves a file too many and never one too few; what no connector's configuration names any more is
removed once workers have had time to let go of it. Whoever reads what connectors are configured with, their versions or
what happened, meets references only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from connectors.secret import REFERENCE, Secrets, names_secret
from connectors.spec import SourceSpec
from schemas.errors import ConfigError
from sinks.pool import Pool, connection
from tillstream.control.connector import Configuration
from tillstream.control.statement import statements
from tillstream.redaction import SHORTEST

MAX_BYTES = 65_536  # as a worker reads them
SWEEP_S = 120.0  # between two sweeps: longer than workers take to follow a new configuration
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
# of a file: its number, and when it was written, in nanoseconds
Identity = tuple[int, int]
_OURS = re.compile(r"[A-Za-z0-9_]+-[0-9]+(?:\.[0-9a-f]+\.tmp)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A configuration with references in the place of secrets, and what is to be written: text by name of a file."""

    configuration: Configuration
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """Those whose values were secrets, given as they are."""
        return [name.rpartition("/")[2].rpartition("-")[0] for name in self.files]


class Unkept:
    """The secrets of a configuration that is tried and not kept, before those that this worker may use."""

    def __init__(self, sealed: Sealed, behind: Secrets) -> None:
        self._given = {_reference(name): text for name, text in sealed.files.items()}
        self._behind = behind

    def resolve(self, reference: str) -> str:
        """
        The secret behind a reference.

        Raises:
            SourceMisconfigured: as the worker's secrets do.
        """
        given = self._given.get(reference)
        return self._behind.resolve(reference) if given is None else given

    def learn(self, secret: str) -> None:
        """Treat this as a secret, too."""
        self._behind.learn(secret)


@dataclass(frozen=True, slots=True)
class SecretStore:
    """
    Takes the secrets out of configurations. `folder` is the workers' folder of secrets; `register` is told of each
    secret before anything else is done with it, so that no line can hold it.
    """

    folder: Path
    register: Callable[[Iterable[str]], None]

    def sealed(self, spec: SourceSpec, configuration: Configuration, *, connector_id: UUID, version: int) -> Sealed:
        """
        The configuration as it is kept, of this version. Nothing is written yet.

        Raises:
            ConfigError: a secret that could not be kept, by field.
        """
        sealed, problems = self.judged(spec, configuration, connector_id=connector_id, version=version)
        if problems:
            raise ConfigError("\n  ".join(["a secret cannot be kept:", *problems]))
        return sealed

    def judged(
        self, spec: SourceSpec, configuration: Configuration, *, connector_id: UUID, version: int
    ) -> tuple[Sealed, list[str]]:
        """As `sealed`, with what is wrong, by field. A secret that could not be kept is left out."""
        kept, files, problems = dict(configuration), {}, []
        for option, value in configuration.items():
            if not _is_literal(spec, option, value):
                continue
            self.register([value])
            if problem := _problem(value):
                problems.append(f"{option}: {problem}")
                del kept[option]
                continue
            name = f"{connector_id}/{option}-{version}"
            kept[option] = _reference(name)
            files[name] = value
        return Sealed(kept, files), problems

    def resealed(self, sealed: Sealed, before: Configuration) -> Sealed:
        """
        The same, with the references of `before` where those hold the same secrets already. Blocking.

        So what is applied twice changes nothing the second time.
        """
        kept, files = dict(sealed.configuration), dict(sealed.files)
        for name, text in sealed.files.items():
            option = name.rpartition("/")[2].rpartition("-")[0]
            if self._holds(before.get(option), text):
                kept[option] = before[option]
                del files[name]
        return Sealed(kept, files)

    def _holds(self, reference: object, text: str) -> bool:
        match = REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
        if match is None or not match["file"] or not _is_id(match["file"].partition("/")[0]):
            return False
        try:
            return (self.folder / match["file"]).read_bytes() == _content(text)
        except OSError:
            return False

    def write(self, sealed: Sealed) -> None:
        """
        Return once every file is durable. Blocking.

        Raises:
            ConfigError: this process may not write there.
        """
        for name, text in sealed.files.items():
            try:
                _write(self.folder, name, text)
            except OSError as exc:
                option = name.rpartition("/")[2].rpartition("-")[0]
                raise ConfigError(
                    f"{option}: a secret is taken by value only where this process may write into the workers' folder"
                    f" of secrets, {self.folder}: {exc.strerror or type(exc).__name__}",
                    hint="give it by reference, ${env:NAME} or ${file:NAME}, or make the folder writable",
                ) from exc

    def unused(self, used: Collection[str]) -> Mapping[str, Identity]:
        """
        Our files that are not among these names, and which each is. Blocking.

        Only what we wrote is looked at: folders called like a connector's id, and in them files like a field and a
        version.
        """
        names = {
            f"{folder.name}/{file.name}"
            for folder in _folders(self.folder)
            for file in folder.iterdir()
            if _OURS.fullmatch(file.name) and not file.is_symlink()
        }
        found = {name: _identity(self.folder / name) for name in names - set(used)}
        return {name: identity for name, identity in found.items() if identity is not None}

    def remove(self, files: Mapping[str, Identity]) -> set[str]:
        """Remove these files, but none that was written anew, and folders that are empty then. Blocking."""
        same = {name for name, identity in files.items() if _identity(self.folder / name) == identity}
        for name in same:
            (self.folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is more in it
                (self.folder / name).parent.rmdir()
        return same


@dataclass(slots=True)
class Sweeper:
    """
    Removes secrets that no living connector's configuration names any more: what was unused the last time, too.

    So a worker that still runs an older configuration, and a file whose configuration is about to be kept, have the
    time between two sweeps. A file that is written anew is another: the one of a change that was cut short has the name
    of the next change's.
    """

    store: SecretStore
    _unused: Mapping[str, Identity] = field(default_factory=dict)

    async def sweep(self, pool: Pool) -> set[str]:
        """
        Sweep once; the names that were removed.

        Raises:
            SinkError: as routed; nothing is removed.
        """
        unused = await asyncio.to_thread(self.store.unused, await used(pool))
        before, self._unused = self._unused, unused
        still = {name: identity for name, identity in unused.items() if before.get(name) == identity}
        return await asyncio.to_thread(self.store.remove, still)


async def used(pool: Pool) -> set[str]:
    """
    The names of files that configurations of living connectors name.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["living_configurations"])
    return {name for row in rows for name in _named(json.loads(row["connection_config"]))}


def _is_literal(spec: SourceSpec, option: str, value: object) -> bool:
    info = spec.config.model_fields.get(option)
    if info is None or not names_secret(info) or not isinstance(value, str):
        return False
    # what begins as a reference and is none is a mistake, which the configuration's judge tells
    return bool(value) and not value.startswith("${")


def _problem(value: str) -> str:
    if len(value.strip()) < SHORTEST:
        return f"has fewer than {SHORTEST} characters: a text that short cannot be kept out of logs"
    if "\x00" in value:
        return "holds NUL"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    return f"has more than {MAX_BYTES - 1} bytes" if size >= MAX_BYTES else ""


def _reference(name: str) -> str:
    return f"${{file:{name}}}"


def _content(text: str) -> bytes:
    return text.encode() + b"\n"  # whoever reads it takes one line's end away


def _write(root: Path, name: str, text: str) -> None:
    root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    folder = root / name.partition("/")[0]
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_FOLDER_MODE)
    path = root / name
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, _FILE_MODE), "wb") as file:
            file.write(_content(text))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    for each in (folder, root):
        _sync(each)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identity(path: Path) -> Identity | None:
    """None: it is gone."""
    try:
        told = path.lstat()
    except FileNotFoundError:
        return None
    return told.st_ino, told.st_mtime_ns


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return [each for each in sorted(root.iterdir()) if _is_id(each.name) and each.is_dir() and not each.is_symlink()]


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


# any JSON
def _named(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        return [name for each in value.values() for name in _named(each)]
    if isinstance(value, list):
        return [name for each in value for name in _named(each)]
    if isinstance(value, str):
        return [match["file"] for match in REFERENCE.finditer(value) if match["file"]]
    return []
