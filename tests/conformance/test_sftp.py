from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors import sftp
from connectors.conformance import ConnectorConformance, Stock
from tests.sftp_server import Server, sftp_server

HEADER = "reference,type,status,asset,initialAmount,amount,createdAt,parentReference\n"
GOOD_ROWS = 7


class TestSftp(ConnectorConformance):
    spec = sftp.SPEC
    openssh = False
    large_rows = 60_000

    @pytest.fixture(autouse=True)
    async def _servers(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as self._stack:
            yield

    async def stock(self, folder: Path) -> Stock:
        server = await self._serve(folder)
        rows = [
            "p-1,payin,pending,EUR,1000,,2026-01-02T03:04:05Z,\n",
            "p-1,payin,succeeded,EUR,1000,,2026-01-02T03:05:05Z,\n",
            "r-1,payin,refunded,EUR,,300,2026-01-02T03:06:05Z,p-1\n",
            "p-2,payin,succeeded,EUR,12.5,,2026-01-02T03:04:05Z,\n",
            "p-3,payout,succeeded,JPY,5,,,\n",
        ]
        objects = [
            {"reference": f"j-{n}", "type": "payin", "status": "succeeded", "asset": "USD", "initialAmount": n}
            for n in (1, 2)
        ]
        _drop(server.root / "a.csv", HEADER + "".join(rows), 1)
        _drop(server.root / "b.json", json.dumps(objects), 2)
        _drop(server.root / "c.jsonl", json.dumps({**objects[0], "reference": "j-3"}) + "\n{oops}\n", 3)
        config = {**self._config_of(server), "checksum_ext": ".sha256", "checksum": "required"}
        broken = {**config, "host_key": "SHA256:" + "A" * 43}
        staging = folder / "staging"
        return Stock(config, GOOD_ROWS, [rows[3].encode(), b"{oops}"], broken, server.secrets, staging)

    async def add(self, folder: Path) -> int:
        rows = "p-9,payin,succeeded,EUR,1,,,\np-9,payin,settled,EUR,1,,,\n"
        _drop(folder / "served" / "d.csv", HEADER + rows, 4)
        return 2

    async def change(self, folder: Path) -> int:
        """The file comes again, with a row of another status: a new object, whose known rows change nothing."""
        changed = folder / "served" / "a.csv"
        _drop(changed, changed.read_text().replace("payin,pending", "payin,failed"), 5)
        return 4

    async def large_stock(self, folder: Path) -> Stock:
        server = await self._serve(folder)
        lines = (f"p-{n},payin,succeeded,EUR,{n + 1},,2026-01-02T03:04:05Z,\n" for n in range(self.large_rows))
        (server.root / "large.csv").write_text(HEADER + "".join(lines))
        return Stock(self._config_of(server), self.large_rows, [], {}, server.secrets, folder / "staging")

    async def _serve(self, folder: Path) -> Server:
        root = folder / "served"
        root.mkdir(exist_ok=True)
        return await self._stack.enter_async_context(sftp_server(root, through_openssh=self.openssh))

    def _config_of(self, server: Server) -> dict[str, object]:
        return {**server.config, "remote_path": str(server.root) if self.openssh else "/"}


class TestSftpOfOpenssh(TestSftp):
    openssh = True
    large_rows = 10_000  # what is read is the same file again


def _drop(path: Path, text: str, age: int) -> None:
    for each, content in (
        (path, text),
        (path.with_name(path.name + ".sha256"), f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n"),
    ):
        each.write_text(content)
        os.utime(each, (1_700_000_000 + age, 1_700_000_000 + age))
