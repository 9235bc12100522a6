"""One large file through the source of a connector: from the first look at the server to the task that is offered."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop

from bench.contender import peak_rss_mib
from connectors import sftp
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.secret import GivenSecrets
from connectors.source import Task
from tillstream.embedded.port import LOOPBACK


async def main(order: dict[str, Any]) -> None:
    """Download, and print what was found."""
    config = sftp.SftpConfig(
        host=LOOPBACK,
        port=order["port"],
        username=order["username"],
        private_key="${file:key}",
        host_key=order["host_key"],
        remote_path=order["folder"],
        pattern=order["name"],
        format="csv",
        rest_s=0,
        allow_networks=("127.0.0.0/8",),
    )
    context = SourceContext(
        uuid4(),
        "bench",
        SystemClock(),
        secrets=GivenSecrets({"${file:key}": Path(order["key"]).read_text()}),
        staging=Path(order["staging"]),
    )
    source = sftp.SPEC.factory(config, context)
    began = time.perf_counter()
    tasks = [item async for page in source.tasks({}) for item in page if isinstance(item, Task)]
    seconds = time.perf_counter() - began
    await source.close()
    # not ru_maxrss: what a child inherits of its parent's peak counts there
    print(json.dumps({"seconds": seconds, "sha256": tasks[0].key, "rss_mib": peak_rss_mib(os.getpid())}))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
