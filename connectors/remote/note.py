"""What the page of the SFTP source tells beside its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# a configuration: any JSON
EXAMPLE: Mapping[str, Any] = {
    "host": "sftp.bank.example",
    "username": "bank",
    "password": "${env:SFTP_PASS}",
    "host_key": "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    "remote_path": "/outgoing",
    "pattern": "AXIS_RECON_YYYYMMDD*.csv",
    "timezone": "Asia/Kolkata",
    "look_back_days": 7,
    "checksum_ext": ".sha256",
    "after_read": "move",
    "move_to": "done",
    "type": "payin",
    "asset": "INR",
    "columns": {"reference": "utr", "amount": "amount", "status": "status", "effective_at": "txn_date"},
}

NOTES = """
**Host key.** A server that does not prove the pinned key is not logged in to, so no password is sent to it. Leave
`host_key` out, run `till source check`: it tells the key that the server shows. Compare it with what the bank tells
you by another way, and pin it. While a bank changes its key, name both, comma-separated.

**When a file is read.** Once its size and time are the same in two looks, `rest_s` apart by our own clock; files that
are being written (`.part`, `.tmp`, a leading dot) are passed over. With `checksum_ext` the file of the checksum must be
there and agree before a row is published: `required` says so from the start, `await` once the file is `grace_s` old.
That age counts from the file's time on the server, or from when it was first seen where that is earlier, and a restart
does not begin it anew. A file that does not match is not looked at again until it or its checksum changes.

**What is read twice.** Nothing: name, size and time tell that a file is known, its SHA-256 that its content is. A file
that was corrected under the same name is a new revision, and its known rows change nothing.

**Downloads** are staged on the worker's disk, `staging_mib` at most. One that was cut goes on where it stopped as long
as the worker lives; a worker that begins anew downloads what it had not read to the end once more, and goes on at the
row where its last checkpoint stands.

**Afterwards** (`after_read`) a file is moved or deleted only once all of its rows are durable, and its checksum's file
follows it. The account needs the right to rename for that.

A folder that is missing, or may not be listed, is tried again, since a bank may make it later; `till connector list`
tells it meanwhile. A refused login and a changed host key pause the connector at once: banks lock accounts.
"""
