"""
A partner's server as a part of a stack: a module of ours that listens on one loopback port, the same after each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence

from tillstream.embedded.home import Home
from tillstream.embedded.port import LOOPBACK, PortBook
from tillstream.embedded.process import Command, child_environment
from tillstream.embedded.service import Service

PORT = "{port}"  # stands for the port in arguments and variables
_PROBE_S = 2.0


class PartnerService(Service):
    """Runs `python -m` with these arguments, in this environment."""

    grace_s = 3.0

    def __init__(
        self, name: str, *, home: Home, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Its port is noted in a folder of the home that has its name."""
        super().__init__(name, directory=home.run, log=home.logs / f"{name}.log")
        self._folder = home.root / name
        self._ports = PortBook(self._folder / "ports.json")
        self._arguments = arguments
        self._environment = dict(environment or {})

    @property
    def port(self) -> int:
        """Where it listens, once it was started."""
        return self._ports.noted()[self.name]

    async def prepare(self) -> Command:
        """Choose the port."""
        self._folder.mkdir(parents=True, exist_ok=True)
        port = str(self._ports.reserve([self.name])[self.name])
        variables = {name: value.replace(PORT, port) for name, value in self._environment.items()}
        return Command(
            # -P: a module of the working directory must not stand in for one of ours
            (sys.executable, "-P", "-m", *(each.replace(PORT, port) for each in self._arguments)),
            log=self.log,
            environment=child_environment(variables),
            directory=self._folder,
        )

    async def is_ready(self) -> bool:
        """Whether somebody answers on its port."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PROBE_S):
                _, writer = await asyncio.open_connection(LOOPBACK, self.port)
            writer.close()
            return True
        return False
