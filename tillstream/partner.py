"""
The partners of the demonstration: a bank with an SFTP server, a payment gateway, a shop with a database.

Each holds some records from the beginning, the same each time, and has more to tell once the demonstration goes on.
What they need lies in one folder, their secrets where workers look for them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from abc import ABC, abstractmethod
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from tillstream.embedded import bank, gateway
from tillstream.embedded.gateway_server import StockedBook
from tillstream.embedded.home import Home
from tillstream.embedded.partner import PORT, PartnerService
from tillstream.embedded.port import LOOPBACK
from tillstream.embedded.postgres import EmbeddedPostgres
from tillstream.embedded.service import Service
from tillstream.embedded.sftp import PASSWORD_FILE, SAMPLE_DAY, UPLOAD, SftpServer
from tillstream.embedded.source_database import STOCK, SourceDatabase

logger = logging.getLogger(__name__)

_BANK_EVERY_S, _SHOP_EVERY_S = 20, 3
_SHOP_PASSWORD = "shop/password"  # noqa: S105  its place below the folder of secrets

# a connector's configuration
Options = dict[str, Any]


class Partner(ABC):
    """Somebody whose records are read by a source of `kind`. `name` tells the partner from others."""

    kind: str
    name: str

    @property
    def service(self) -> Service | None:
        """The server of its own, if it has one."""
        return None

    @abstractmethod
    async def open(self) -> None:
        """Make what must be there before its server starts: files, secrets, rows."""

    @abstractmethod
    def place(self) -> str:
        """Where it is, as operators read it, once its server has started."""

    @abstractmethod
    def options(self) -> Options:
        """What a connector needs to find it here."""

    @property
    @abstractmethod
    def records(self) -> int:
        """How many records it has offered by now."""

    async def offer_more(self) -> None:  # noqa: B027 (most have everything from the beginning)
        """What comes while its connector is reading already."""

    @abstractmethod
    async def go_on(self, second: int) -> None:
        """What happens in the `second`-th second after the demonstration."""

    def halt(self) -> None:  # noqa: B027 (who does nothing by itself has nothing to halt)
        """Nothing happens any more."""

    async def close(self) -> None:  # noqa: B027 (most leave nothing but files)
        """Leave nothing behind that costs anything."""


class Bank(Partner):
    """Files of days, each with its checksum; the first is seed 004's."""

    kind, name = "sftp", "bank"

    def __init__(self, home: Home, secrets: str) -> None:
        """Its server keeps everything in `home`. `secrets` is where that one's secrets are for workers."""
        self._secrets = secrets
        self._day = SAMPLE_DAY
        self._server = SftpServer(home.root)  # the one that the service runs
        self._service = PartnerService(
            self.name,
            home=home,
            arguments=("tillstream.embedded.sftp", "serve", "--home", str(home.root)),
            environment={"SFTP_PORT": PORT},
        )

    @property
    def service(self) -> Service:
        """An SFTP server."""
        return self._service

    async def open(self) -> None:
        """The first file."""
        self._server.place_password()
        bank.drop(self._server.upload, self._day)

    def place(self) -> str:
        """As SFTP clients write it."""
        return f"sftp://{self._server.account.username}@{LOOPBACK}:{self._service.port}/{UPLOAD}"

    def options(self) -> Options:
        """Address, account, and the key to pin."""
        return {
            "host": LOOPBACK,
            "port": self._service.port,
            "username": self._server.account.username,
            "password": f"${{file:{self._secrets}/{PASSWORD_FILE}}}",
            "host_key": self._server.host_key,
        }

    @property
    def records(self) -> int:
        """Rows of all files."""
        return ((self._day - SAMPLE_DAY).days + 1) * bank.ROWS

    async def go_on(self, second: int) -> None:
        """The next day's file, now and then."""
        if second % _BANK_EVERY_S == 0:
            self._day += timedelta(days=1)
            bank.drop(self._server.upload, self._day)


class PaymentGateway(Partner):
    """Payments and refunds by HTTP."""

    kind, name = "http_api", "gateway"

    def __init__(self, home: Home, secrets: str) -> None:
        """As `Bank`."""
        self._home = home
        self._secrets = secrets
        self._folder = home.root / "gateway"
        self._service = PartnerService(
            self.name,
            home=home,
            arguments=("tillstream.embedded.gateway_server", str(self._folder), "--port", PORT),
        )

    @property
    def service(self) -> Service:
        """An HTTP server."""
        return self._service

    async def open(self) -> None:
        """What it wants to hear of those who ask."""
        gateway.place_secrets(self._home.root / "secrets")

    def place(self) -> str:
        """The beginning of its addresses."""
        return f"http://{LOOPBACK}:{self._service.port}/v1"

    def options(self) -> Options:
        """Address and account."""
        names = {"username": gateway.KEY_ID_FILE, "password": gateway.KEY_SECRET_FILE}
        references = {option: f"${{file:{self._secrets}/{name}}}" for option, name in names.items()}
        return {"api_base_url": self.place(), **references}

    @property
    def records(self) -> int:
        """Payments and refunds of its stock."""
        return StockedBook.of(self._folder).records

    async def go_on(self, second: int) -> None:  # noqa: ARG002 (it keeps time by itself)
        """Take payments."""
        StockedBook.of(self._folder).go_on()

    def halt(self) -> None:
        """Take no more."""
        StockedBook.of(self._folder).halt()


class Shop(Partner):
    """A table of events in a database."""

    kind, name = "postgres_changes", "shop"

    def __init__(self, home: Home, secrets: str, server: EmbeddedPostgres, database: str) -> None:
        """It lies in `server`, which runs by the time of `open`."""
        self._password_file = home.root / "secrets" / _SHOP_PASSWORD
        self._secrets = secrets
        self._database = SourceDatabase(server, database)
        self._written = 0

    async def open(self) -> None:
        """Rows that are there before anybody reads them."""
        password = await self._database.create()
        self._password_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._password_file.touch(0o600)
        self._password_file.write_text(password, encoding="utf-8")
        await self._write(STOCK)

    def place(self) -> str:
        """The table."""
        options = self.options()
        return f"postgresql://{options['host']}:{options['port']}/{options['database']}, table events"

    def options(self) -> Options:
        """Address and account."""
        name = self._database.name
        return {**self._database.configuration(f"${{file:{self._secrets}/{_SHOP_PASSWORD}}}"), "slot": name}

    @property
    def records(self) -> int:
        """Rows that it wrote."""
        return self._written

    async def offer_more(self) -> None:
        """As many once more, as changes."""
        await self._write(STOCK)

    async def go_on(self, second: int) -> None:
        """Another row, now and then; later, while the database is away."""
        if second % _SHOP_EVERY_S == 0:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._write(1)

    async def close(self) -> None:
        """Drop the database: its slot would hold back the server's log as long as nobody reads it."""
        try:
            await self._database.drop()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            logger.warning("the shop's database stays", extra={"facts": {"error": exc}})

    async def _write(self, count: int) -> None:
        await self._database.write(self._written, count)
        self._written += count


def link_secrets(home: Home, folder: Path, name: str) -> str:
    """
    Make the secrets of partners in `home` those below `name` in the workers' `folder`; what a reference begins with.
    """
    target = folder / name
    for each in (folder, *reversed(target.relative_to(folder).parents[:-1]), target):
        (folder / each).mkdir(mode=0o700, parents=True, exist_ok=True)
    link = home.root / "secrets"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)
    return name


def drop_secrets(home: Home) -> None:
    """Remove what `link_secrets` linked."""
    link = home.root / "secrets"
    shutil.rmtree(link.resolve(), ignore_errors=True)
    link.unlink(missing_ok=True)
