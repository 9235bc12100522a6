from __future__ import annotations

import json
import os
from pathlib import Path

from connectors import directory
from connectors.conformance import ConnectorConformance, Stock

HEADER = "reference,type,status,asset,initialAmount,amount,createdAt,parentReference\n"
GOOD_ROWS = 7


class TestDirectory(ConnectorConformance):
    spec = directory.SPEC

    async def stock(self, folder: Path) -> Stock:
        watched = folder / "watched"
        watched.mkdir()
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
        _drop(watched / "a.csv", HEADER + "".join(rows), 1)
        _drop(watched / "b.json", json.dumps(objects), 2)
        _drop(watched / "c.jsonl", json.dumps({**objects[0], "reference": "j-3"}) + "\n{oops}\n", 3)
        config = {"directory": str(watched), "rest_s": 0}
        broken = {"directory": str(folder / "absent")}
        return Stock(config, GOOD_ROWS, [rows[3].encode(), b"{oops}"], broken)

    async def add(self, folder: Path) -> int:
        _drop(folder / "watched" / "d.csv", HEADER + "p-9,payin,succeeded,EUR,1,,,\np-9,payin,settled,EUR,1,,,\n", 4)
        return 2

    async def change(self, folder: Path) -> int:
        """The file comes again, with a row of another status: a new object, whose known rows change nothing."""
        changed = folder / "watched" / "a.csv"
        text = changed.read_text().replace("payin,pending", "payin,failed")
        _drop(changed, text.replace(",12.5,", ",13.5,"), 5)
        return 4

    async def large_stock(self, folder: Path) -> Stock:
        watched = folder / "watched"
        watched.mkdir()
        rows, raw = 20_000, "x" * 600
        lines = (f"p-{n},payin,succeeded,EUR,{n + 1},{raw}\n" for n in range(rows))
        (watched / "large.csv").write_text("reference,type,status,asset,amount,raw\n" + "".join(lines))
        return Stock({"directory": str(watched), "rest_s": 0}, rows, [], {})


def _drop(path: Path, text: str, age: int) -> None:
    path.write_text(text)
    os.utime(path, (1_700_000_000 + age, 1_700_000_000 + age))
