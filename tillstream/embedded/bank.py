"""
A bank that is none: the daily reconciliation files of seed 004, each with its checksum.

A day's file is made of the day alone, so it is the same whoever makes it, and again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

HEADER = "TXNID,CREDIT_AMT,NET_CR_AMT,VALUE_DATE,UTR,RRN,AUTH,POST_DATE,BANK,STATUS,REMARKS"
PATTERN = "AXIS_RECON_YYYYMMDD*.csv"
ZONE = "Asia/Kolkata"
ROWS = 10
_FAILED, _PENDING = 5, 8  # rows of each file that did not go well, or not yet
_FEE_PERCENT = 2

# How the files are understood: the mapping of samples/sftp/axis/connector.yaml, which a test keeps equal.
MAPPING: Mapping[str, Any] = {
    "columns": {"reference": "TXNID", "amount": "CREDIT_AMT", "effective_at": "VALUE_DATE", "status": "STATUS"},
    "type": "payin",
    "asset": "INR/2",
    "amount_unit": "major",
    "date_format": "%Y-%m-%d",
    "timezone": ZONE,
    "headers": {"utr": "UTR", "rrn": "RRN", "net": "NET_CR_AMT", "remarks": "REMARKS"},
}


def name_of(day: date) -> str:
    """The name of a day's file."""
    return f"AXIS_RECON_{day:%Y%m%d}.csv"


def text_of(day: date, *, rows: int = ROWS) -> str:
    """A day's file: payins in rupees, one of them failed, one pending."""
    chance = random.Random(day.toordinal())
    lines = [HEADER]
    for number in range(1, rows + 1):
        paise = chance.randrange(10_000, 500_000, 50)
        net = paise - paise * _FEE_PERCENT // 100
        status, remarks = "SUCCESS", ""
        if number == _FAILED:
            status, remarks, net = "FAILED", "Insufficient funds", 0
        elif number == _PENDING:
            status, remarks = "PENDING", "awaiting UTR"
        utr = "" if status != "SUCCESS" else f"AXISN5{day:%y%m%d}{number:05d}"
        rrn = f"{day:%j}{chance.randrange(10**9):09d}"
        auth = "" if status == "FAILED" else f"A{chance.randrange(10**5):05d}"
        amounts = f"{paise // 100}.{paise % 100:02d},{net // 100}.{net % 100:02d}"
        lines.append(f"TXN{day:%y%m%d}{number:03d},{amounts},{day},{utr},{rrn},{auth},{day},AXIS,{status},{remarks}")
    return "\n".join(lines) + "\n"


def drop(folder: Path, day: date, *, rows: int = ROWS) -> Path:
    """Put a day's file into a folder, and its checksum beside it, each whole from the moment it is there."""
    text = text_of(day, rows=rows)
    path = folder / name_of(day)
    _rename_in(path, text)
    _rename_in(path.with_name(f"{path.name}.sha256"), f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n")
    return path


def _rename_in(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
