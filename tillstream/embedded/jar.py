"""
The jars of the embedded broker: fetched once by their Maven coordinates, verified before every use.

`jars.lock` names each by exact coordinates and SHA-256, because a resolver's choice is not ours:
one asked for Kafka 4.3.1 brought the clients of 3.8.0.
A cached jar that differs from the lock is fetched again, a fetched one that differs is refused.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from schemas.errors import StackError

logger = logging.getLogger(__name__)

LOCK = "jars.lock"
# Enough to hide the round trips of small files, few enough to be a polite client.
PARALLEL_FETCHES = 6
FETCH_TIMEOUT_S = 60
NETWORK_HINT = (
    "check the network and the proxy settings; behind a mirror set TILL_MAVEN_REPOSITORY to its address, "
    "without a network copy the files of another machine's cache here"
)


@dataclass(frozen=True, slots=True)
class Jar:
    """A jar as the lock pins it; `coordinates` are group:artifact:version."""

    coordinates: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """Its name in the cache, unique among versions and contents."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}-{self.sha256[:8]}.jar"


# Writes the jar's bytes to a file in the given folder and tells which; raises StackError when it cannot.
Fetch = Callable[[Jar, Path], Path]


def locked_jars() -> tuple[Jar, ...]:
    """The jars of the lock, in the order of the class path."""
    text = resources.files("tillstream.embedded").joinpath(LOCK).read_text()
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Jar(coordinates, sha256, int(size)) for coordinates, sha256, size in rows)


def class_path(cache: Path, *, fetch: Fetch, jars: tuple[Jar, ...] | None = None) -> tuple[Path, ...]:
    """
    The verified jars in the cache, what was missing or altered fetched anew.

    Safe when several processes do it at once: a jar appears in the cache by a rename, whole and verified.

    Raises:
        StackError: a jar cannot be fetched, or what came differs from the lock. Disposition: pause.
    """
    wanted = locked_jars() if jars is None else jars
    missing = [jar for jar in wanted if not is_intact(cache / jar.file_name, jar)]
    if missing:
        _fetch_all(missing, cache, fetch)
    return tuple(cache / jar.file_name for jar in wanted)


def is_intact(path: Path, jar: Jar) -> bool:
    """Whether the file is there and holds exactly the bytes that the lock pins."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except OSError:
        return False


def maven_fetch(environment: Mapping[str, str]) -> Fetch:
    """Fetching from the public Maven repository, or from the mirror that `TILL_MAVEN_REPOSITORY` names."""
    repository = environment.get("TILL_MAVEN_REPOSITORY")

    def fetch(jar: Jar, folder: Path) -> Path:
        try:
            # Here, because it is needed once in a machine's life and belongs to an extra.
            from jgo.maven import MavenContext  # noqa: PLC0415
        except ImportError as exc:
            raise StackError(
                "the embedded broker's jars cannot be fetched: the package jgo is missing",
                hint="install the `embedded` extra, or use a broker of your own: TILL_KAFKA",
            ) from exc
        group, artifact, version = jar.coordinates.split(":")
        remotes = {"mirror": repository} if repository else None
        context = MavenContext(repo_cache=folder, remote_repos=remotes, timeout=FETCH_TIMEOUT_S)
        try:
            return Path(context.project(group, artifact).at_version(version).artifact().resolve())
        except (OSError, RuntimeError) as exc:  # requests' errors are OSErrors
            raise StackError(f"{jar.coordinates} cannot be fetched: {exc}", hint=NETWORK_HINT) from exc

    return fetch


def _fetch_all(jars: list[Jar], cache: Path, fetch: Fetch) -> None:
    megabytes = sum(jar.size_bytes for jar in jars) / 1e6
    logger.info("jars missing", extra={"facts": {"jars": len(jars), "megabytes": round(megabytes, 1)}})
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as folder,
            ThreadPoolExecutor(PARALLEL_FETCHES) as pool,
        ):
            list(pool.map(lambda jar: _fetch_one(jar, cache, Path(folder), fetch), jars))
    except OSError as exc:
        raise StackError(
            f"the jar cache {cache} cannot be written: {exc}", hint="set TILL_CACHE to another directory"
        ) from exc


def _fetch_one(jar: Jar, cache: Path, folder: Path, fetch: Fetch) -> None:
    fetched = fetch(jar, folder)
    if not is_intact(fetched, jar):
        raise StackError(
            f"{jar.coordinates} is not the file that jars.lock pins: expected SHA-256 {jar.sha256}",
            hint="do not use it: find out what altered it on the way (a proxy's error page, a mirror, an attack)",
        )
    fetched.replace(cache / jar.file_name)
