from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from connectors import http_api
from connectors.conformance import ConnectorConformance, Stock
from connectors.testing import START
from tillstream.embedded import gateway
from tillstream.embedded.gateway import Gateway
from tillstream.embedded.gateway_book import Row, WrittenBook

NOW = int(START.timestamp())
SECRETS = {"${env:KEY_ID}": gateway.KEY_ID, "${env:KEY_SECRET}": gateway.KEY_SECRET}


def payment(name: str, age_s: int, status: str = "captured", **members: Any) -> Row:
    row = {"id": name, "amount": 1250, "currency": "INR", "status": status, "method": "upi", "created_at": NOW - age_s}
    return {**row, **members}


class GatewayConformance(ConnectorConformance):
    spec = http_api.SPEC

    @pytest.fixture(autouse=True)
    async def _servers(self) -> AsyncIterator[None]:
        self.running: list[Gateway] = []
        yield
        for each in self.running:
            await each.stop()

    async def add(self, folder: Path) -> int:
        for n in range(2):
            self.book.write(payment(f"pay_later_{n}", NOW - int(self.moment.timestamp()) + 600 - n))
        return 2

    async def serve(self, book: WrittenBook) -> Gateway:
        self.book = book
        server = await Gateway(book, clock=lambda: int(self.moment.timestamp())).start()
        self.running.append(server)
        return server


class TestRazorpay(GatewayConformance):
    async def stock(self, folder: Path) -> Stock:
        book, bad = WrittenBook(), payment("pay_bad", 900, amount="12.5")
        for row in (
            payment("pay_1", 1_000, "created"),
            payment("pay_2", 950, "authorized"),
            bad,
            payment("pay_3", 850, "failed"),
            payment("pay_4", 800, "refunded"),
            payment("pay_5", 700),
        ):
            book.write(row)
        book.refund_rows["rfnd_1"] = payment("rfnd_1", 100, "processed", payment_id="pay_4")
        book.refund_rows["rfnd_2"] = payment("rfnd_2", 90, "pending", payment_id="pay_5")
        return self.stocked((await self.serve(book)).url, 6, [json.dumps(bad).encode()])

    async def large_stock(self, folder: Path) -> Stock:
        book, rows = WrittenBook(), 600
        for n in range(rows):
            book.write(payment(f"pay_{n}", 80_000 - n, notes="x" * 20_000))
        return self.stocked((await self.serve(book)).url, rows, [])

    def stocked(self, url: str, published: int, rejected: list[bytes]) -> Stock:
        config = {
            "template": "razorpay",
            "api_base_url": f"{url}/v1",
            "username": "${env:KEY_ID}",
            "password": "${env:KEY_SECRET}",
            "allow_networks": ["127.0.0.0/8"],
            "requests_per_s": None,
        }
        broken = {**config, "password": "${env:KEY_ID}"}
        return Stock(config, published, rejected, broken, SECRETS)


class TestPages(GatewayConformance):
    """Pages of two, counted, so that every step has a page before and one after it, and each window a second pass."""

    paging: ClassVar[dict[str, Any]] = {
        "paging": "offset",
        "path": "/lists/basic/offset",
        "query": {"from": "{from}", "to": "{to}", "size": "{size}", "offset": "{offset}"},
    }

    async def stock(self, folder: Path) -> Stock:
        book, bad = WrittenBook(), payment("pay_bad", 900, status="lost")
        for n in range(4):
            book.write(payment(f"pay_{n}", 1_000 - n))
        book.write(bad)
        return self.stocked((await self.serve(book)).url, 4, [json.dumps(bad).encode()])

    async def large_stock(self, folder: Path) -> Stock:
        book, rows = WrittenBook(), 600
        for n in range(rows):
            book.write(payment(f"pay_{n}", 80_000 - n, notes="x" * 20_000))
        return self.stocked((await self.serve(book)).url, rows, [], page_size=100)

    def stocked(self, url: str, published: int, rejected: list[bytes], page_size: int = 2) -> Stock:
        resource = {
            "name": "payments",
            "records": "$.data",
            "page_size": page_size,
            "time": "$.created_at",
            "time_format": "unix_s",
            **self.paging,
        }
        config = {
            "api_base_url": url,
            "authentication_type": "basic",
            "username": "${env:KEY_ID}",
            "password": "${env:KEY_SECRET}",
            "allow_networks": ["127.0.0.0/8"],
            "date_format": "unix_s",
            "type": "payin",
            "columns": {"reference": "id", "asset": "currency"},
            "status_map": {"captured": "succeeded"},
            "resources": [resource],
        }
        broken = {**config, "api_base_url": f"{url}/nothing"}
        return Stock(config, published, rejected, broken, SECRETS)


class TestChanges(TestPages):
    """Records that say when they were changed, within the time that is read again at each poll."""

    async def change(self, folder: Path) -> int:
        changed = payment("pay_1", 999, amount=1300, changed_at=int(self.moment.timestamp()) - 60)
        self.book.write(changed)
        return 1

    def stocked(self, url: str, published: int, rejected: list[bytes], page_size: int = 2) -> Stock:
        stock = super().stocked(url, published, rejected, page_size)
        (resource,) = stock.config["resources"]
        resource = {**resource, "overlap_s": 172_800}
        config = {**stock.config, "updated_at": "changed_at", "resources": [resource]}
        return Stock(config, published, rejected, {**stock.broken, "resources": [resource]}, SECRETS)


class TestCursors(TestPages):
    paging: ClassVar[dict[str, Any]] = {
        "paging": "cursor",
        "path": "/lists/basic/cursor",
        "next": "$.next_cursor",
        "query": {"from": "{from}", "to": "{to}", "size": "{size}", "cursor": "{cursor}"},
    }


class TestDays(TestPages):
    """Bounded tasks, each a day that is over."""

    paging: ClassVar[dict[str, Any]] = {
        "paging": "page",
        "window": "day",
        "path": "/lists/basic/page",
        "query": {"from": "{from}", "to": "{to}", "size": "{size}", "page": "{page}"},
    }

    async def add(self, folder: Path) -> int:
        self.book.write(payment("pay_later", 60))  # on the day that has become yesterday
        return 1

    def stocked(self, url: str, published: int, rejected: list[bytes], page_size: int = 3) -> Stock:
        stock = super().stocked(url, published, rejected, page_size)
        # in this zone the day of the rows is over for four minutes
        zone = {"timezone": "America/Sao_Paulo", "daily_at": "00:00"}
        return Stock({**stock.config, **zone}, published, rejected, {**stock.broken, **zone}, SECRETS)
