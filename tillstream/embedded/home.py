"""
Where a stack keeps its data, and where downloads are cached.

Everything that one stack writes lies under its home (`TILL_HOME`), so several stacks run side by side.
The cache (`TILL_CACHE`) is shared by all stacks and may be deleted at any time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError

ROOT_UID = 0
# Used by root when its home directory is closed to others: PostgreSQL refuses to run as root, and the user it runs
# under instead must reach its data. The places are those of the Filesystem Hierarchy Standard, 5.5 and 5.8.
SYSTEM_HOME = Path("/var/lib/tillstream")
SYSTEM_CACHE = Path("/var/cache/tillstream")


@dataclass(frozen=True, slots=True)
class Home:
    """The layout of one stack's data directory."""

    root: Path

    @property
    def kafka(self) -> Path:
        """Kafka's log directory, configuration and ports."""
        return self.root / "kafka"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data directory, password and ports."""
        return self.root / "postgres"

    @property
    def logs(self) -> Path:
        """One log file for each child process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What lives as long as the processes do: lock, state, process ids."""
        return self.root / "run"

    def create(self) -> None:
        """
        Make the directories. Children that run under another user pass through `root`, and read nothing else of it.

        Raises:
            ConfigError: the place cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o711)
            for folder in (self.logs, self.run):
                folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigError(
                f"TILL_HOME {self.root} cannot be written: {exc.strerror}",
                hint="set TILL_HOME to a directory that you can write",
            ) from exc


def default_home(environment: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Where a stack lives when nobody says: `TILL_HOME`, else the user's data directory, else the system's."""
    if chosen := environment.get("TILL_HOME"):
        return Path(chosen).expanduser().absolute()
    base = Path(environment.get("XDG_DATA_HOME") or _user_home(environment) / ".local" / "share")
    return _or_system(base / "tillstream", SYSTEM_HOME, uid=uid)


def default_cache(environment: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Where downloads are kept when nobody says: `TILL_CACHE`, else the user's cache directory, else the system's."""
    if chosen := environment.get("TILL_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(environment.get("XDG_CACHE_HOME") or _user_home(environment) / ".cache")
    return _or_system(base / "tillstream", SYSTEM_CACHE, uid=uid)


def closed_ancestor(path: Path, *, uid: int, gid: int) -> Path | None:
    """
    The first directory on the way to `path` that a user without other groups cannot pass; None when all are open.

    Parts that do not exist yet count as open. Access control lists are not consulted.
    """
    for ancestor in [*reversed(path.absolute().parents), path.absolute()]:
        try:
            status = ancestor.stat()
        except FileNotFoundError:
            return None
        if not _passable(status, uid=uid, gid=gid):
            return ancestor
    return None


def _passable(status: os.stat_result, *, uid: int, gid: int) -> bool:
    if uid == ROOT_UID or not stat.S_ISDIR(status.st_mode):
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _or_system(place: Path, system: Path, *, uid: int | None) -> Path:
    """`place`, unless we are root and others cannot pass to it."""
    if (os.geteuid() if uid is None else uid) != ROOT_UID:
        return place.absolute()
    # Any user that owns nothing and is in no group stands for "others" here.
    return system if closed_ancestor(place.parent, uid=2**31 - 2, gid=2**31 - 2) else place.absolute()


def _user_home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME") or Path.home())
